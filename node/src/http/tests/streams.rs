//! Answers as server-sent events.

use super::fake::{FakeGateway, KEY, failed, finished, hello, post, said, started};
use crate::gateway::{Event, StreamEvent, StreamFailure};
use crate::http::{Limits, router};
use crate::text::AddSpecial;
use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;
use proto::request::{Finish, Refusal};
use proto::{Position, Span};
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

fn chat(extra: Value) -> Value {
    let mut body =
        json!({"model": "small", "stream": true, "messages": [{"role": "user", "content": "fox"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

fn contents(chunks: &[Value]) -> String {
    chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn a_chat_stream_opens_with_the_role_and_closes_with_the_reason() {
    let gateway = FakeGateway::new(hello);
    let answer = post(&gateway, "/v1/chat/completions", chat(json!({}))).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    let chunks = answer.chunks();
    assert_eq!(
        chunks[0]["choices"][0],
        json!({"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null})
    );
    let last = chunks.last().unwrap();
    assert_eq!(
        last["choices"][0],
        json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"})
    );
    assert_eq!(contents(&chunks), "The fox");
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(
            (&chunk["id"], &chunk["created"], &chunk["model"]),
            (&last["id"], &last["created"], &json!("small"))
        );
        assert!(chunk.get("usage").is_none());
    }
    assert!(answer.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn chunks_of_tokens_carry_request_choice_and_position() {
    let gateway = FakeGateway::new(hello);
    let answer = post(&gateway, "/v1/chat/completions", chat(json!({}))).await;
    let request = gateway.seen().request;
    let ids: Vec<&str> = answer
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .collect();
    let shown = contents(&answer.chunks());
    let tokens = gateway
        .text()
        .tokenizer()
        .encode(&shown, crate::text::AddSpecial::Never)
        .unwrap()
        .len();
    let expected: Vec<String> = (0..tokens)
        .map(|position| format!("{request}:0:{position}"))
        .collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn usage_comes_at_the_end_or_on_every_chunk_as_asked() {
    let gateway = FakeGateway::new(hello);
    let at_end = post(
        &gateway,
        "/v1/chat/completions",
        chat(json!({"stream_options": {"include_usage": true}})),
    )
    .await
    .chunks();
    let (last, before) = at_end.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["completion_tokens"].as_u64().unwrap() > 1);
    assert!(
        before
            .iter()
            .all(|chunk| chunk.get("usage") == Some(&Value::Null))
    );

    let options = json!({"stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let always = post(&gateway, "/v1/chat/completions", chat(options))
        .await
        .chunks();
    let counts: Vec<u64> = always
        .iter()
        .map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    let grows_by_one = |pair: &[u64]| pair[0] == pair[1] || pair[0] + 1 == pair[1];
    assert!(
        counts[0] == 0 && counts.windows(2).all(grows_by_one) && *counts.last().unwrap() > 1,
        "of what was sent so far, though all was there at once: {counts:?}"
    );
    assert_eq!(always.last().unwrap()["choices"], json!([]));

    let options = json!({"stream_options": {"continuous_usage_stats": true}});
    let on_choices = post(&gateway, "/v1/chat/completions", chat(options))
        .await
        .chunks();
    assert_eq!(on_choices.len(), always.len() - 1);
    for chunk in on_choices {
        assert!(chunk["usage"]["completion_tokens"].is_u64() && chunk["choices"] != json!([]));
    }
}

#[tokio::test]
async fn a_completion_stream_ends_with_the_reason_and_gives_the_prompt_first_when_asked() {
    let gateway = FakeGateway::new(hello);
    let chunks = post(
        &gateway,
        "/v1/completions",
        json!({"prompt": "It's ", "echo": true, "stream": true}),
    )
    .await
    .chunks();
    let text: String = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(chunks[0]["choices"][0]["text"], "It's ");
    assert_eq!(text, "It's The fox");
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn the_choices_of_a_stream_are_told_apart_by_index() {
    let gateway = FakeGateway::new(hello);
    let chunks = post(&gateway, "/v1/chat/completions", chat(json!({"n": 2})))
        .await
        .chunks();
    for index in 0..2 {
        let of_choice: Vec<Value> = chunks
            .iter()
            .filter(|chunk| chunk["choices"][0]["index"] == index)
            .cloned()
            .collect();
        assert_eq!(contents(&of_choice), "The fox");
        assert_eq!(of_choice.last().unwrap()["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn held_text_is_never_sent_when_a_stop_string_follows() {
    let gateway = FakeGateway::new(|request, model| {
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, "over the lazy dog. The fox"));
        events.push(finished(0, Finish::Length));
        Ok(events)
    });
    let answer = post(&gateway, "/v1/chat/completions", chat(json!({"stop": "azy dog"}))).await;
    assert_eq!(contents(&answer.chunks()), "over the l");
    assert_eq!(gateway.signals().ended, [0]);
}

#[tokio::test]
async fn an_error_after_the_head_is_told_inside_the_stream_which_then_ends() {
    let gateway = FakeGateway::new(|request, model| {
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, "fox"));
        events.push(failed(
            0,
            StreamFailure::Refused(Refusal::Unavailable {
                retry_after: Span::from_secs(1),
            }),
        ));
        Ok(events)
    });
    let answer = post(&gateway, "/v1/chat/completions", chat(json!({}))).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text.contains("[DONE]"));
    let last = answer
        .text
        .trim_end()
        .lines()
        .last()
        .unwrap()
        .strip_prefix("data: ")
        .unwrap();
    let error: Value = serde_json::from_str(last).unwrap();
    assert_eq!(error["error"]["code"], "unavailable");
}

/// An open stream over a gateway whose script has no end.
async fn open_stream(
    gateway: &std::sync::Arc<FakeGateway>,
    keep_alive: Duration,
) -> axum::body::BodyDataStream {
    let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {KEY}"));
    let request = request.body(Body::from(chat(json!({})).to_string())).unwrap();
    let limits = Limits {
        keep_alive,
        ..Limits::default()
    };
    let response = router(gateway.clone(), limits).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().into_data_stream()
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request() {
    let gateway = FakeGateway::new(|_, _| Ok(vec![started(0, 0)]));
    let mut stream = open_stream(&gateway, Duration::from_secs(3600)).await;
    stream.next().await.unwrap().unwrap();
    assert_eq!(gateway.signals().dropped, 0);
    drop(stream);
    assert_eq!(gateway.signals().dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_tokens_are_not_shown_says_that_it_is_alive() {
    let gateway = FakeGateway::new(|_, _| Ok(vec![started(0, 0)]));
    let mut stream = open_stream(&gateway, Duration::from_secs(1)).await;
    stream.next().await.unwrap().unwrap();
    let begun = tokio::time::Instant::now();
    let id = gateway
        .text()
        .tokenizer()
        .encode("<|im_end|>", AddSpecial::Never)
        .unwrap()[0];
    let teller = gateway.clone();
    tokio::spawn(async move {
        for position in 0..8 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let (position, score) = (Position(position), None);
            let event = Event::Token { position, id, score };
            teller.say(StreamEvent { choice: 0, event });
        }
    });
    assert_eq!(stream.next().await.unwrap().unwrap(), ": keep-alive\n\n");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test]
async fn a_silent_stream_says_that_it_is_alive() {
    let gateway = FakeGateway::new(|_, _| Ok(Vec::new()));
    let mut stream = open_stream(&gateway, Duration::from_millis(1)).await;
    assert_eq!(stream.next().await.unwrap().unwrap(), ": keep-alive\n\n");
}
