//! A client that goes away leaves nothing behind.

use serde_json::json;
use std::time::{Duration, Instant};
use tests::{Client, Node};

const RUNNING: &str = "vllm:num_requests_running";

const ENDS: &str = "vllm:request_success_total";

/// Waits, with an end, until a metric has this value.
fn wait_for_metric(client: &Client, name: &str, value: f64) {
    wait_for_labelled(client, (name, ""), value);
}

/// Of those samples that have the label.
fn wait_for_labelled(client: &Client, (name, label): (&str, &str), value: f64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.labelled_metric(name, label) != value {
        assert!(
            Instant::now() < deadline,
            "{name} {label} stays at {}, not {value}",
            client.labelled_metric(name, label)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn closing_a_stream_frees_what_it_held() {
    let node = Node::start();
    let client = node.client();
    let body = json!({"prompt": "Once upon a time", "max_tokens": 8000, "ignore_eos": true});
    let streams: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = client.stream("/v1/completions", body.clone());
            assert!(stream.next().is_some(), "a first token");
            stream
        })
        .collect();
    wait_for_metric(&client, RUNNING, 4.0);
    drop(streams);
    wait_for_metric(&client, RUNNING, 0.0);
    // What was broken off is an outcome too, so that there are as many of those as latencies.
    wait_for_labelled(&client, (ENDS, "finished_reason=\"abort\""), 4.0);
    wait_for_metric(&client, "vllm:e2e_request_latency_seconds_count", 4.0);
    let after = client.complete(json!({"prompt": "Once upon a time", "max_tokens": 4, "ignore_eos": true}));
    assert_eq!(after["usage"]["completion_tokens"], 4);
}

#[test]
fn one_client_leaving_does_not_touch_the_others() {
    let node = Node::start();
    let client = node.client();
    let body = json!({"prompt": "The sea", "max_tokens": 200, "ignore_eos": true, "temperature": 0});
    let alone = client.complete(body.clone())["choices"][0]["text"].clone();
    let mut leaving = client.stream(
        "/v1/completions",
        json!({"prompt": "A hill", "max_tokens": 8000, "ignore_eos": true}),
    );
    assert!(leaving.next().is_some());
    let mut staying = client.stream("/v1/completions", body);
    let first = staying.next().expect("a first token");
    drop(leaving);
    let rest = std::iter::once(first).chain(&mut staying);
    let text: String = rest
        .filter_map(|event| event["choices"][0]["text"].as_str().map(str::to_owned))
        .collect();
    assert!(staying.ended_properly());
    assert_eq!(alone, json!(text));
}
