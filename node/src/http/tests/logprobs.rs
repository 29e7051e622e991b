//! Log-probabilities in both forms.

use super::fake::{FakeGateway, finished, hello, post, said, score, started};
use crate::gateway::{Event, StreamEvent};
use proto::request::Finish;
use serde_json::{Value, json};

#[tokio::test]
async fn chat_logprobs_name_each_token_with_its_bytes_and_rivals() {
    let gateway = FakeGateway::new(hello);
    let body = json!({"messages": [{"role": "user", "content": "fox"}], "logprobs": true, "top_logprobs": 2});
    let answer = post(&gateway, "/v1/chat/completions", body).await.json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(
        content.len() as u64,
        answer["usage"]["completion_tokens"].as_u64().unwrap()
    );
    let last = content.last().unwrap();
    assert_eq!(last["token"], "<|im_end|>");
    assert_eq!(last["bytes"], json!("<|im_end|>".as_bytes()));
    assert_eq!(last["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(last["top_logprobs"][0]["logprob"], last["logprob"]);
    assert_eq!(last["logprob"], json!(f64::from(-0.1f32)));
    assert_eq!(gateway.seen().streams[0].sampling.logprobs, Some(2));
}

#[tokio::test]
async fn in_a_stream_every_token_has_its_logprobs_also_while_its_text_is_held_back() {
    let gateway = FakeGateway::new(|request, model| {
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, "lazy 🙃 dog"));
        events.push(finished(0, Finish::Length));
        Ok(events)
    });
    let body = json!({"messages": [{"role": "user", "content": "fox"}], "logprobs": true, "stream": true, "stop": "lazy!"});
    let chunks = post(&gateway, "/v1/chat/completions", body).await.chunks();
    let bytes: Vec<u8> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .flat_map(|entry| {
            entry["bytes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|byte| byte.as_u64().unwrap() as u8)
        })
        .collect();
    assert_eq!(bytes, "lazy 🙃 dog".as_bytes());
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "lazy 🙃 dog");
}

/// What lm-eval sends to score a continuation, and what it reads from the answer.
#[tokio::test]
async fn a_scored_prompt_has_null_first_and_the_same_float_in_both_places() {
    let gateway = FakeGateway::new(|request, model| {
        let prompt = request.streams[0].prompt.to_vec();
        let count = request.streams[0].sampling.prompt_logprobs.unwrap();
        let mut scores: Vec<_> = prompt[1..].iter().map(|id| score(*id, count)).collect();
        // The second token is not the likeliest one.
        scores[0].logprob = -7.3;
        scores[0].top[0] = (50, -0.33);
        let later = scores.split_off(1);
        let mut events = vec![started(0, 0)];
        events.extend([scores, later].map(|scores| StreamEvent {
            choice: 0,
            event: Event::PromptScores(scores),
        }));
        events.extend(said(request, model, 0, 0, "<|im_end|>"));
        events.push(finished(0, Finish::Stop));
        Ok(events)
    });
    let body = json!({"model": "small", "prompt": [[40, 41, 42, 43]], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true});
    let answer = post(&gateway, "/v1/completions", body).await.json();
    let logprobs = &answer["choices"][0]["logprobs"];
    let values = logprobs["token_logprobs"].as_array().unwrap();
    let tops = logprobs["top_logprobs"].as_array().unwrap();
    assert_eq!(
        (
            values.len(),
            tops.len(),
            logprobs["tokens"].as_array().unwrap().len()
        ),
        (5, 5, 5)
    );
    assert_eq!((&values[0], &tops[0]), (&Value::Null, &Value::Null));
    let best = |top: &Value| {
        top.as_object()
            .unwrap()
            .values()
            .map(|value| value.as_f64().unwrap())
            .fold(f64::MIN, f64::max)
    };
    assert_ne!(values[1].as_f64(), Some(best(&tops[1])));
    assert_eq!(tops[1].as_object().unwrap().len(), 2);
    for index in 2..5 {
        assert_eq!(values[index].as_f64(), Some(best(&tops[index])));
    }
    assert_eq!(gateway.seen().streams[0].sampling.prompt_logprobs, Some(1));
}

#[tokio::test]
async fn text_offsets_count_characters_of_the_text() {
    let gateway = FakeGateway::new(hello);
    let body = json!({"prompt": "Größe", "echo": true, "logprobs": 0});
    let choice = &post(&gateway, "/v1/completions", body).await.json()["choices"][0];
    let characters: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    let offsets: Vec<u64> = choice["logprobs"]["text_offset"]
        .as_array()
        .unwrap()
        .iter()
        .map(|offset| offset.as_u64().unwrap())
        .collect();
    assert_eq!(offsets[0], 0);
    assert!(offsets.is_sorted());
    let first_of_answer = offsets.iter().position(|offset| *offset == 5).unwrap();
    assert_eq!(characters[offsets[first_of_answer] as usize], 'T');
}

#[tokio::test]
async fn tokens_can_be_named_by_id_so_that_no_two_names_collide() {
    let gateway = FakeGateway::new(hello);
    let body = json!({"prompt": "fox", "logprobs": 1, "return_tokens_as_token_ids": true});
    let answer = post(&gateway, "/v1/completions", body).await.json();
    let names = answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap();
    assert_eq!(names.last().unwrap(), "token_id:2");
}
