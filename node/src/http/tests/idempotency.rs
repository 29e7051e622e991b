//! A retry with the same key gets the answer of the first try.

use super::fake::{FakeGateway, KEY, failed, finished, hello, said, started};
use crate::gateway::{Generate, StreamEvent, StreamFailure};
use crate::http::{Limits, router};
use crate::text::TextModel;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use proto::request::{Finish, Refusal};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

struct Node {
    gateway: Arc<FakeGateway>,
    router: Router,
}

struct Heard {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Node {
    fn new(script: super::fake::Script) -> Node {
        let gateway = FakeGateway::new(script);
        let limits = Limits {
            keep_alive: std::time::Duration::from_secs(3600),
            ..Limits::default()
        };
        let router = router(gateway.clone(), limits);
        Node { gateway, router }
    }

    async fn begin(&self, key: &str, body: &Value) -> Response {
        let request = Request::post("/v1/completions")
            .header("authorization", format!("Bearer {KEY}"))
            .header("idempotency-key", key)
            .body(Body::from(body.to_string()));
        self.router.clone().oneshot(request.unwrap()).await.unwrap()
    }

    async fn ask(&self, key: &str, body: &Value) -> Heard {
        let (head, body) = self.begin(key, body).await.into_parts();
        let bytes = to_bytes(body, 1 << 24).await.unwrap();
        Heard {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// How many requests reached the gateway since the last time.
    fn runs(&self) -> usize {
        self.gateway.seen_count()
    }
}

fn fox(is_stream: bool) -> Value {
    json!({"prompt": "fox", "stream": is_stream})
}

#[tokio::test]
async fn a_repetition_gets_the_same_bytes_whole_and_streamed() {
    for is_stream in [false, true] {
        let node = Node::new(hello);
        let first = node.ask("a", &fox(is_stream)).await;
        let again = node.ask("a", &fox(is_stream)).await;
        assert_eq!((first.status, again.status), (StatusCode::OK, StatusCode::OK));
        assert_eq!(first.text, again.text);
        assert!(!first.text.is_empty());
        assert_eq!(first.headers["content-type"], again.headers["content-type"]);
        assert_eq!(first.headers.get("idempotent-replayed"), None);
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_ne!(first.headers["x-request-id"], again.headers["x-request-id"]);
        assert_eq!(node.runs(), 1);
        assert_ne!(
            node.ask("b", &fox(is_stream)).await.text,
            first.text,
            "another key runs"
        );
    }
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let node = Node::new(hello);
    node.ask("a", &fox(false)).await;
    let other = node.ask("a", &json!({"prompt": "dog"})).await;
    assert_eq!(other.status, 422);
    assert!(other.text.contains("idempotency_key_reused"), "{}", other.text);
    assert_eq!(node.runs(), 1);
}

#[tokio::test]
async fn while_the_first_runs_the_second_is_told_to_come_again() {
    let node = Node::new(hello);
    let running = node.begin("a", &fox(true)).await;
    let second = node.ask("a", &fox(true)).await;
    assert_eq!(
        (second.status, &second.headers["retry-after"]),
        (StatusCode::CONFLICT, &"1".parse().unwrap())
    );
    let bytes = to_bytes(running.into_body(), 1 << 20).await.unwrap();
    let third = node.ask("a", &fox(true)).await;
    assert_eq!(
        third.text.as_bytes(),
        bytes,
        "once it has ended, its answer is there"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let node = Node::new(hello);
    drop(node.begin("a", &fox(true)).await);
    let second = node.ask("a", &fox(true)).await;
    assert_eq!((second.status, node.runs()), (StatusCode::OK, 2));
    assert_eq!(second.headers.get("idempotent-replayed"), None);
}

fn breaks_off(request: &Generate, model: &TextModel) -> Result<Vec<StreamEvent>, Refusal> {
    let mut events = vec![started(0, 0)];
    events.extend(said(request, model, 0, 0, "The"));
    events.push(failed(0, StreamFailure::SlowReader));
    Ok(events)
}

#[tokio::test]
async fn errors_are_not_kept() {
    for (script, is_stream) in [
        (breaks_off as super::fake::Script, true),
        (breaks_off, false),
        (|_, _| Err(Refusal::Draining), false),
    ] {
        let node = Node::new(script);
        node.ask("a", &fox(is_stream)).await;
        let again = node.ask("a", &fox(is_stream)).await;
        assert_eq!(node.runs(), 2, "{}", again.text);
        assert_eq!(again.headers.get("idempotent-replayed"), None);
    }
    let node = Node::new(hello);
    assert_eq!(node.ask("a", &json!({"prompt": 5})).await.status, 400);
    assert_eq!(node.ask("a", &fox(false)).await.status, 200);
}

#[tokio::test]
async fn a_text_that_says_done_does_not_end_a_stream() {
    let node = Node::new(|request, model| {
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, "data: [DONE]\n\n"));
        events.push(finished(0, Finish::Stop));
        Ok(events)
    });
    let first = node.ask("a", &fox(true)).await;
    assert_eq!(node.ask("a", &fox(true)).await.text, first.text);
    assert!(first.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_key_must_be_fit_for_one() {
    let node = Node::new(hello);
    let long = node.ask(&"k".repeat(256), &fox(false)).await;
    assert_eq!(long.status, 400);
    assert!(long.text.contains("Idempotency-Key"));
}

#[tokio::test]
async fn two_keys_are_one_too_many() {
    let node = Node::new(hello);
    let asked = async |second: &str| {
        let request = Request::post("/v1/completions")
            .header("authorization", format!("Bearer {KEY}"))
            .header("idempotency-key", "a")
            .header("idempotency-key", second)
            .body(Body::from(fox(false).to_string()));
        let answer = node.router.clone().oneshot(request.unwrap()).await.unwrap();
        answer.status()
    };
    assert_eq!(asked("b").await, 400);
    assert_eq!(asked("a").await, 200, "the same one, said twice");
}

/// A request that goes on with a stream.
async fn resumed(node: &Node, key: Option<&str>, last_event: &str, body: &Value) -> Heard {
    let mut request = Request::post("/v1/completions").header("authorization", format!("Bearer {KEY}"));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request
        .header("last-event-id", last_event)
        .body(Body::from(body.to_string()));
    let (head, body) = node
        .router
        .clone()
        .oneshot(request.unwrap())
        .await
        .unwrap()
        .into_parts();
    let bytes = to_bytes(body, 1 << 24).await.unwrap();
    Heard {
        status: head.status,
        headers: head.headers,
        text: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

/// Without the time at which it was made.
fn undated(text: &str) -> String {
    let parts = text
        .split("\"created\":")
        .enumerate()
        .map(|(index, part)| match index {
            0 => part,
            _after => part.trim_start_matches(|letter: char| letter.is_ascii_digit()),
        });
    parts.collect()
}

#[tokio::test]
async fn a_stream_goes_on_behind_any_of_its_events_on_its_node_and_on_another() {
    let here = Node::new(hello);
    let whole = here.ask("a", &fox(true)).await.text;
    let seed = here.gateway.seen().streams[0].sampling.seed;
    let mut events = 0;
    for (at, _) in whole.match_indices("id: ") {
        let id = whole[at + 4..].lines().next().unwrap();
        let end = at + whole[at..].find("\n\n").unwrap() + 2;
        let again = resumed(&here, Some("a"), id, &fox(true)).await;
        assert_eq!(
            (again.status, again.text.as_str()),
            (StatusCode::OK, &whole[end..])
        );
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(here.runs(), 0);

        let there = Node::new(hello);
        let rest = resumed(&there, Some("a"), id, &fox(true)).await;
        assert_eq!(rest.status, StatusCode::OK);
        assert_eq!(undated(&rest.text), undated(&whole[end..]));
        let ran = there.gateway.seen();
        assert_eq!(ran.streams[0].sampling.seed, seed);
        assert!(
            !id.starts_with(&ran.request.to_string()),
            "it runs by a name of its own"
        );
        // What is kept of it is all of it.
        let kept = there.ask("a", &fox(true)).await;
        assert_eq!(undated(&kept.text), undated(&whole));
        assert_eq!(there.runs(), 0);
        events += 1;
    }
    assert!(events > 1, "{whole}");
}

#[tokio::test]
async fn a_key_decides_the_seed_of_a_request_without_one() {
    let seed = async |key: &str, body: &Value| {
        let node = Node::new(hello);
        node.ask(key, body).await;
        node.gateway.seen().streams[0].sampling.seed
    };
    let of_a = seed("a", &fox(false)).await;
    // For all versions: a stream may go on where another one runs.
    assert_eq!(of_a, 15_555_744_591_607_386_634);
    assert_eq!(seed("a", &json!({"prompt": "dog"})).await, of_a);
    assert_ne!(seed("b", &fox(false)).await, of_a);
    assert_eq!(seed("a", &json!({"prompt": "fox", "seed": 7})).await, 7);
}

#[tokio::test]
async fn what_cannot_go_on_is_refused() {
    let node = Node::new(hello);
    let id = |choice: u32| format!("{:032x}:{choice}:0", 5);
    let two = json!({"prompt": "fox", "stream": true, "n": 2});
    node.ask("two", &two).await;
    node.ask("kept", &fox(true)).await;
    assert_eq!(node.runs(), 2);
    let prompts = json!({"prompt": ["fox", "dog"], "stream": true});
    for (key, last_event, body) in [
        (None, id(0), fox(true)),
        (Some("a"), id(0), fox(false)),
        (Some("a"), id(0), two.clone()),
        (Some("two"), id(0), two),
        (Some("a"), id(0), prompts),
        (Some("a"), id(1), fox(true)),
        (Some("a"), "7".to_owned(), fox(true)),
        (Some("a"), String::new(), fox(true)),
        // An event of another stream than the one that is kept.
        (Some("kept"), id(0), fox(true)),
    ] {
        let refused = resumed(&node, key, &last_event, &body).await;
        assert_eq!(refused.status, 400, "{last_event} {body}: {}", refused.text);
        assert!(refused.text.contains("Last-Event-ID"), "{}", refused.text);
    }
    assert_eq!(node.runs(), 2, "nothing of it ran");
}
