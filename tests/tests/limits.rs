//! Every queue has a bound, and says so.

use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tests::{Answer, Node};

#[test]
fn a_full_queue_is_a_429_with_retry_after() {
    let node = Node::start();
    let client = node.client();
    let body = json!({"model": tests::MODEL, "prompt": "Go on", "n": 64, "max_tokens": 4000, "ignore_eos": true, "stream": true});
    // Streams that nobody reads fill the server; each asks for as much as one request may.
    let mut held = Vec::new();
    let refused = (0..200).find_map(|_| match open_stream(node.address(), node.key(), &body) {
        (200, socket, _) => {
            held.push(socket);
            None
        }
        (status, _, head) => Some((status, head)),
    });
    let (status, head) = refused.expect("200 × 64 streams of 4000 tokens are more than any queue takes");
    assert_eq!(status, 429, "{head}");
    let retry_after = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("retry-after:")
            .map(str::to_owned)
    });
    let seconds: u64 = retry_after
        .expect("Retry-After")
        .trim()
        .parse()
        .expect("a number of seconds");
    assert!(seconds >= 1);
    drop(held);
    let metrics: Answer = client.get("/metrics");
    assert_eq!(metrics.status, 200);
}

/// Sends a request by hand and reads the head of the answer alone.
fn open_stream(address: &str, key: Option<&str>, body: &serde_json::Value) -> (u16, TcpStream, String) {
    let body = body.to_string();
    send(address, key, body.len(), &body)
}

/// Announces a body of `length` bytes, sends `body`, and reads the head of the answer.
fn send(address: &str, key: Option<&str>, length: usize, body: &str) -> (u16, TcpStream, String) {
    let mut socket = TcpStream::connect(address).expect("the node listens");
    socket
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a timeout");
    let key = key.unwrap_or_default();
    write!(
        socket,
        "POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("the node reads");
    let head = read_head(&mut socket);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), socket, head)
}

fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).expect("the node answers") == 1 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

#[test]
fn a_reader_that_never_reads_costs_the_others_nothing() {
    let node = Node::start();
    let client = node.client();
    let endless = json!({"model": tests::MODEL, "prompt": "Go on", "max_tokens": 8000, "ignore_eos": true, "stream": true});
    let (status, _unread, head) = open_stream(node.address(), node.key(), &endless);
    assert_eq!(status, 200, "{head}");
    for _ in 0..3 {
        let answer = client.complete(json!({"prompt": "Hello", "max_tokens": 8, "ignore_eos": true}));
        assert_eq!(answer["usage"]["completion_tokens"], 8);
    }
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_the_numbers() {
    let node = Node::start();
    let prompt: Vec<u32> = vec![1000; 9000];
    let answer = node.client().post(
        "/v1/completions",
        &json!({"model": tests::MODEL, "prompt": prompt, "max_tokens": 1}),
    );
    assert_eq!(answer.status, 400, "{}", answer.text);
    let message = answer.body["error"]["message"].as_str().expect("a message");
    assert!(message.contains("8192"), "{message}");
}

/// The model's vocabulary lacks some bytes.
#[test]
fn megabytes_of_text_are_refused_before_they_are_cut_into_tokens() {
    let node = Node::start();
    let body = json!({"model": tests::MODEL, "prompt": "a".repeat(4_000_000), "max_tokens": 1});
    let answer = node.client().post("/v1/completions", &body);
    assert_eq!(answer.status, 400, "{}", answer.text);
    let message = answer.body["error"]["message"].as_str().expect("a message");
    assert!(message.contains("it has at least"), "{message}");
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let node = Node::start();
    let (status, _, head) = send(node.address(), node.key(), 1 << 40, "{");
    assert_eq!(status, 413, "{head}");
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    let node = Node::start();
    let answer = node.client().post("/v1/completions", &json!("no object"));
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.body["error"]["message"].is_string());
}
