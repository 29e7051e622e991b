//! Where the time of a request went, for those who ask.

use super::fake::{Answer, FakeGateway, KEY, finished, hello, said, send, started, timed};
use axum::body::Body;
use axum::http::Request;
use proto::request::Finish;
use serde_json::{Value, json};
use std::sync::Arc;

fn gateway() -> Arc<FakeGateway> {
    FakeGateway::new(|request, model| {
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, "The fox"));
        events.extend([timed(0), finished(0, Finish::Stop)]);
        Ok(events)
    })
}

async fn ask(gateway: &Arc<FakeGateway>, wanted: &str, body: Value) -> Answer {
    let request = Request::post("/v1/completions")
        .header("authorization", format!("Bearer {KEY}"))
        .header("x-cluster-timing", wanted)
        .body(Body::from(body.to_string()));
    send(gateway, request.unwrap()).await
}

fn assert_is_split(timing: &Value) {
    let part = |name: &str| {
        timing[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name}: {timing}"))
    };
    assert_eq!(
        (part("queue_ms"), part("prefill_ms"), part("decode_ms")),
        (1.0, 2.0, 4.0)
    );
    assert!(part("total_ms") > 0.0);
    let rest = (part("total_ms") - 7.0).max(0.0);
    assert!((part("network_ms") - rest).abs() < 1e-6, "{timing}");
}

#[tokio::test]
async fn a_whole_answer_tells_where_its_time_went_when_asked() {
    let answer = ask(&gateway(), "1", json!({"prompt": "fox"})).await.json();
    assert_is_split(&answer["timing"]);
    assert!(
        ask(&gateway(), "0", json!({"prompt": "fox"}))
            .await
            .json()
            .get("timing")
            .is_none()
    );
}

#[tokio::test]
async fn a_stream_tells_it_with_the_end_of_the_last_choice() {
    for (options, usage_chunks) in [(json!(null), 0), (json!({"include_usage": true}), 1)] {
        let body = json!({"prompt": "fox", "stream": true, "stream_options": options});
        let chunks = ask(&gateway(), "1", body).await.chunks();
        let (told, rest): (Vec<_>, Vec<_>) = chunks.iter().partition(|chunk| chunk.get("timing").is_some());
        assert_eq!(told.len(), 1);
        assert_is_split(&told[0]["timing"]);
        assert_eq!(told[0]["choices"][0]["finish_reason"], "stop");
        let without_choice = rest.iter().filter(|chunk| chunk["choices"] == json!([]));
        assert_eq!(without_choice.count(), usage_chunks);
    }
}

#[tokio::test]
async fn of_several_choices_the_one_that_ends_last_tells_it() {
    let chunks = ask(
        &FakeGateway::new(hello),
        "1",
        json!({"prompt": "fox", "stream": true, "n": 3}),
    )
    .await
    .chunks();
    let (last, before) = chunks.split_last().unwrap();
    assert!(last.get("timing").is_some() && last["choices"][0]["index"] == 2);
    assert!(before.iter().all(|chunk| chunk.get("timing").is_none()));
}

#[tokio::test]
async fn without_the_header_nothing_is_told() {
    let chunks = ask(
        &FakeGateway::new(hello),
        "",
        json!({"prompt": "fox", "stream": true}),
    )
    .await
    .chunks();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.get("timing").is_none() && chunk["choices"] != json!([]))
    );
}
