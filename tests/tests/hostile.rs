//! What hostile clients do never reaches others: their tokens stay the same, and they are served.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use tests::{Client, Crowd, CrowdSize, Node};

/// A stream long enough that every attack falls into it.
fn canary(client: &Client) -> Vec<Value> {
    let body = json!({
        "prompt": "Once upon a time", "max_tokens": 150, "ignore_eos": true, "temperature": 1, "seed": 11,
        "logprobs": 2, "return_token_ids": true,
    });
    let mut stream = client.stream("/v1/completions", body);
    let mut tokens = Vec::new();
    for chunk in &mut stream {
        let choice = &chunk["choices"][0];
        tokens.extend(choice["token_ids"].as_array().into_iter().flatten().cloned());
        tokens.extend(
            choice["logprobs"]["token_logprobs"]
                .as_array()
                .into_iter()
                .flatten()
                .cloned(),
        );
    }
    assert!(stream.ended_properly());
    assert!(tokens.len() >= 300, "{tokens:?}");
    tokens
}

/// Statuses of these answers are no matter, only that there is one.
fn attack(client: &Client) {
    let long = |unit: &str| unit.repeat((1 << 20) / unit.len());
    for text in [
        long("a"),
        long("e\u{301}"),
        long("👩‍👩‍👧"),
        long(" \n"),
        long("<|im_start|>"),
    ] {
        client.post(
            "/v1/completions",
            &json!({"model": tests::MODEL, "prompt": text, "max_tokens": 1}),
        );
        client.post("/tokenize", &json!({"model": tests::MODEL, "prompt": text}));
        client.post(
            "/v1/chat/completions",
            &json!({"model": tests::MODEL, "messages": [{"role": "user", "content": text}], "truncate_prompt_tokens": 9,
                    "max_tokens": 1}),
        );
    }
    let nested = (0..100).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "array", "items": inner}),
    );
    let names: Vec<String> = (0..4_000).map(|name| format!("choice {name}")).collect();
    for form in [
        json!({"json": nested}),
        json!({"json": {"type": "string", "pattern": "(a|b|ab)*{1,1000}".repeat(50)}}),
        json!({"json": {"enum": names}}),
        json!({"regex": "(((a{1,99}){1,99}){1,99}){1,99}"}),
        json!({"regex": "((a+)+)+b"}),
        json!({"grammar": "start: start start | \"a\" start | \"b\""}),
    ] {
        client.post(
            "/v1/completions",
            &json!({"model": tests::MODEL, "prompt": "a", "max_tokens": 20, "structured_outputs": form}),
        );
    }
    let biases: serde_json::Map<String, Value> = (0..1_000).map(|id| (id.to_string(), json!(100))).collect();
    client.post(
        "/v1/completions",
        &json!({"model": tests::MODEL, "prompt": vec!["x"; 64], "n": 2, "max_tokens": 3, "logit_bias": biases,
                "logprobs": 20, "echo": true, "repetition_penalty": 1e-2, "temperature": 2}),
    );
}

/// What is no HTTP, half of one, or left in the middle.
fn garble(node: &Node) {
    let body = r#"{"prompt": "The sea", "stream": true, "max_tokens": 3000, "ignore_eos": true}"#;
    let key = node.key().expect("a key");
    let whole = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut parts: Vec<Vec<u8>> = (1..8)
        .map(|part| whole.as_bytes()[..whole.len() * part / 8].to_vec())
        .collect();
    parts.push(whole.into_bytes());
    parts.push(vec![0xff; 70_000]);
    parts.push(b"GET / HTTP/9.9\r\n\r\n".to_vec());
    parts.push(
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n"
            .to_vec(),
    );
    for part in parts {
        let mut stream = TcpStream::connect(node.address()).expect("the node takes connections");
        // It may have been thrown out already.
        let _ = stream.write_all(&part);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 16]);
    }
}

/// How often the canary sang.
fn sing_until(is_over: &AtomicBool, client: &Client, alone: &[Value]) -> usize {
    let mut songs = 0;
    while !is_over.load(Ordering::Acquire) {
        assert_eq!(canary(client), alone);
        songs += 1;
    }
    songs
}

/// Also when its scope ends by a panic, or nobody would ever be told.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn no_attack_moves_the_tokens_of_another_stream() {
    let node = Node::start();
    let client = node.client();
    let alone = canary(&client);
    let _crowd = Crowd::gather(
        node.address().parse().expect("an address"),
        CrowdSize {
            idle: 2_000,
            slow_headers: 200,
        },
    );
    let attacks_are_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let canaries = scope.spawn(|| sing_until(&attacks_are_over, &client, &alone));
        {
            let _over = SetOnDrop(&attacks_are_over);
            attack(&client);
            garble(&node);
        }
        assert!(canaries.join().expect("the same tokens") > 0);
    });
    assert_eq!(canary(&client), alone);
    let state = client.get("/health");
    assert_eq!(state.status, 200, "{}", state.text);
    assert_eq!(node.children().len(), 1, "the shard host still runs");
}
