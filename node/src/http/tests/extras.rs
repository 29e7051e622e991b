//! Token ids, scores of the prompt, and the ways to cut or continue a prompt.

use super::fake::{FakeGateway, finished, hello, post, said, score, started};
use crate::gateway::{Event, StreamEvent};
use crate::text::AddSpecial;
use proto::request::Finish;
use serde_json::{Value, json};

fn chat(extra: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "fox"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn token_ids_of_prompt_and_answer_come_when_asked_for() {
    let gateway = FakeGateway::new(hello);
    let spoken = gateway
        .text()
        .tokenizer()
        .encode("The fox<|im_end|>", AddSpecial::Never)
        .unwrap();
    let whole = post(
        &gateway,
        "/v1/chat/completions",
        chat(json!({"return_token_ids": true})),
    )
    .await
    .json();
    let prompt = gateway.seen().streams[0].prompt.to_vec();
    assert_eq!(
        (&whole["prompt_token_ids"], &whole["choices"][0]["token_ids"]),
        (&json!(prompt), &json!(spoken))
    );
    let body = json!({"prompt": [40, 41], "echo": true, "return_token_ids": true});
    let whole = post(&gateway, "/v1/completions", body).await.json();
    assert_eq!(whole["choices"][0]["prompt_token_ids"], json!([40, 41]));
    assert_eq!(
        whole["choices"][0]["token_ids"],
        json!(spoken),
        "an echoed prompt is no answer"
    );
    let silent = post(&gateway, "/v1/chat/completions", chat(json!({})))
        .await
        .json();
    assert!(silent.get("prompt_token_ids").is_none() && silent["choices"][0].get("token_ids").is_none());
}

#[tokio::test]
async fn in_a_stream_the_first_chunk_has_the_prompts_ids_and_every_token_its_own() {
    let gateway = FakeGateway::new(hello);
    let spoken = gateway
        .text()
        .tokenizer()
        .encode("The fox<|im_end|>", AddSpecial::Never)
        .unwrap();
    let ids = |chunks: &[Value]| -> Vec<Value> {
        let of_chunk = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["token_ids"].as_array());
        of_chunk.flatten().cloned().collect()
    };
    let body = chat(json!({"return_token_ids": true, "stream": true}));
    let chunks = post(&gateway, "/v1/chat/completions", body).await.chunks();
    assert_eq!(
        chunks[0]["prompt_token_ids"],
        json!(gateway.seen().streams[0].prompt.to_vec())
    );
    assert!(
        chunks[1..]
            .iter()
            .all(|chunk| chunk.get("prompt_token_ids").is_none())
    );
    assert_eq!(json!(ids(&chunks)), json!(spoken));
    let body = json!({"prompt": [40, 41], "echo": true, "return_token_ids": true, "stream": true});
    let chunks = post(&gateway, "/v1/completions", body).await.chunks();
    assert_eq!(chunks[0]["choices"][0]["prompt_token_ids"], json!([40, 41]));
    assert_eq!(json!(ids(&chunks)), json!(spoken));
}

/// Scores for each token of the prompt but the first, three rivals each.
pub fn scored(prompt: &[u32]) -> Vec<StreamEvent> {
    let scores = prompt[1..].iter().map(|id| score(*id, 3)).collect();
    vec![
        started(0, 0),
        StreamEvent {
            choice: 0,
            event: Event::PromptScores(scores),
        },
        finished(0, Finish::Length),
    ]
}

#[tokio::test]
async fn prompt_logprobs_have_null_first_and_then_the_token_and_its_rivals_by_id() {
    let gateway = FakeGateway::new(|request, _| Ok(scored(&request.streams[0].prompt)));
    let body = json!({"prompt": [40, 41, 42], "prompt_logprobs": 2});
    let whole = post(&gateway, "/v1/completions", body).await.json();
    let scores = &whole["choices"][0]["prompt_logprobs"];
    assert_eq!(scores[0], Value::Null);
    assert_eq!(scores.as_array().unwrap().len(), 3);
    let own = json!({"logprob": f64::from(-0.1f32), "rank": 1, "decoded_token": gateway.text().vocabulary().text(42)});
    assert_eq!(
        (&scores[2]["42"], scores[2].as_object().unwrap().len()),
        (&own, 2)
    );
    assert_eq!(gateway.seen().streams[0].sampling.prompt_logprobs, Some(2));
    let whole = post(
        &gateway,
        "/v1/chat/completions",
        chat(json!({"prompt_logprobs": 0})),
    )
    .await
    .json();
    assert_eq!(whole["prompt_logprobs"][1].as_object().unwrap().len(), 1);
    let stream = chat(json!({"prompt_logprobs": 0, "stream": true}));
    let refused = post(&gateway, "/v1/chat/completions", stream).await;
    assert_eq!(
        (refused.status.as_u16(), refused.error_param().as_str()),
        (400, "prompt_logprobs")
    );
}

#[tokio::test]
async fn an_echo_shows_as_many_rivals_as_it_asks_for_beside_more_prompt_logprobs() {
    let gateway = FakeGateway::new(|request, _| Ok(scored(&request.streams[0].prompt)));
    let body =
        json!({"prompt": [40, 41], "echo": true, "max_tokens": 0, "logprobs": 1, "prompt_logprobs": 3});
    let whole = post(&gateway, "/v1/completions", body).await.json();
    assert_eq!(gateway.seen().streams[0].sampling.prompt_logprobs, Some(3));
    let choice = &whole["choices"][0];
    assert_eq!(
        choice["logprobs"]["top_logprobs"][1].as_object().unwrap().len(),
        1
    );
    assert_eq!(choice["prompt_logprobs"][1].as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn a_prompt_that_is_to_be_truncated_keeps_its_end() {
    let gateway = FakeGateway::new(hello);
    let ids: Vec<u32> = (40..240).collect();
    for (truncate, max_tokens, kept) in [(3, 5, 3), (-1, 30, 70), (500, 5, 0)] {
        let body = json!({"prompt": ids, "truncate_prompt_tokens": truncate, "max_tokens": max_tokens, "echo": true});
        let answer = post(&gateway, "/v1/completions", body).await;
        if kept == 0 {
            assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
            continue;
        }
        let prompt = gateway.seen().streams[0].prompt.to_vec();
        assert_eq!(prompt, ids[ids.len() - kept..]);
        let echoed = answer.json()["choices"][0]["text"].as_str().unwrap().to_string();
        let text = crate::text::decode(
            gateway.text().vocabulary(),
            &prompt,
            crate::text::SpecialTokens::Skip,
        );
        assert!(echoed.starts_with(&text), "{echoed} {text}");
    }
    post(
        &gateway,
        "/v1/chat/completions",
        chat(json!({"truncate_prompt_tokens": 2})),
    )
    .await;
    assert_eq!(gateway.seen().streams[0].prompt.len(), 2);
}

#[tokio::test]
async fn the_stop_string_or_the_stop_tokens_text_may_stay() {
    let gateway = FakeGateway::new(|request, model| {
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, "over the lazy dog"));
        events.push(finished(0, Finish::Stop));
        Ok(events)
    });
    let body = json!({"prompt": "fox", "stop": "lazy", "include_stop_str_in_output": true});
    let text = post(&gateway, "/v1/completions", body).await.json()["choices"][0]["text"].clone();
    assert_eq!(text, "over the lazy");
    let last = *gateway
        .text()
        .tokenizer()
        .encode("over the lazy dog", AddSpecial::Never)
        .unwrap()
        .last()
        .unwrap();
    let tail = gateway.text().vocabulary().text(last);
    for (is_kept, ends) in [(true, true), (false, false)] {
        let body = json!({"prompt": "fox", "stop_token_ids": [last], "include_stop_str_in_output": is_kept});
        let answer = post(&gateway, "/v1/completions", body).await.json();
        let text = answer["choices"][0]["text"].as_str().unwrap().to_string();
        assert_eq!(text.ends_with(&tail), ends, "{text:?} {tail:?}");
    }
}

#[tokio::test]
async fn the_last_message_can_be_continued() {
    let gateway = FakeGateway::new(hello);
    let messages = json!([{"role": "user", "content": "fox"}, {"role": "assistant", "content": "The lazy "}]);
    let body = json!({"messages": messages, "continue_final_message": true});
    assert_eq!(post(&gateway, "/v1/chat/completions", body).await.status, 200);
    let expected = "<|im_start|>user\nfox<|im_end|>\n<|im_start|>assistant\nThe lazy ";
    let ids = gateway
        .text()
        .tokenizer()
        .encode(expected, AddSpecial::Never)
        .unwrap();
    assert_eq!(gateway.seen().streams[0].prompt.to_vec(), ids);
    let body = json!({"messages": messages, "continue_final_message": true, "add_generation_prompt": true});
    let refused = post(&gateway, "/v1/chat/completions", body).await;
    assert_eq!(
        (refused.status.as_u16(), refused.error_param().as_str()),
        (400, "continue_final_message")
    );
}
