//! The same request gives the same bits, whatever else the server does.
//!
//! Compared are log-probabilities as they stand in the JSON: they are printed so that they read back to the same f32.
//! Chunk sizes of the prompt are covered where they can be set, in `shard`; here they vary with the load.

use serde_json::{Value, json};
use tests::{Client, Node, NodeOptions};

const TEXT: &str = "The history of the lighthouse begins long before electricity: fires on hills and towers warned \
                    ships of rocks and led them home. Later came oil lamps, lenses and clockwork, and with them";

/// Tokens, with log-probabilities of prompt and output.
fn scored(client: &Client, prompt: &str) -> Value {
    let body = json!({"prompt": prompt, "echo": true, "logprobs": 5, "max_tokens": 24, "temperature": 0, "ignore_eos": true});
    client.complete(body)["choices"][0].clone()
}

/// Output alone: without `echo` a cached prefix may be used.
fn generated(client: &Client, prompt: &str) -> Value {
    let body =
        json!({"prompt": prompt, "logprobs": 5, "max_tokens": 24, "temperature": 0, "ignore_eos": true});
    client.complete(body)
}

fn choice(answer: &Value) -> &Value {
    &answer["choices"][0]
}

fn cached_tokens(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap_or(0)
}

/// A prompt of some hundred tokens that no other number shares a prefix with.
fn noise(number: usize) -> String {
    let words = ["river", "stone", "lamp", "wind", "harbour", "letter", "bread"];
    let text: Vec<&str> = (0..(number * 37) % 300 + 5)
        .map(|at| words[(at * 5 + number) % 7])
        .collect();
    format!("{number}: {}", text.join(" "))
}

#[test]
fn alone_and_among_31_others() {
    let node = Node::start();
    let client = node.client();
    let alone = scored(&client, TEXT);
    let others: Vec<_> = (0..31)
        .map(|number| {
            let client = client.clone();
            std::thread::spawn(move || {
                let body = json!({"prompt": noise(number), "max_tokens": 48, "temperature": 1, "seed": number, "ignore_eos": true});
                client.complete(body);
            })
        })
        .collect();
    // Several times, so that it meets prefills, decodes and a changing number of rows.
    let among: Vec<Value> = (0..4).map(|_| scored(&client, TEXT)).collect();
    for other in others {
        other.join().expect("the other requests succeed too");
    }
    for choice in among {
        assert_eq!(choice, alone);
    }
}

#[test]
fn with_and_without_a_prefix_hit() {
    let node = Node::start();
    let client = node.client();
    let cold = generated(&client, TEXT);
    assert_eq!(cached_tokens(&cold), 0);
    let warm = generated(&client, TEXT);
    assert!(cached_tokens(&warm) >= 16, "no prefix hit: {}", warm["usage"]);
    assert_eq!(choice(&warm), choice(&cold));
}

#[test]
fn on_one_rank_and_on_two() {
    let one = NodeOptions::new().with(&["--tp", "1"]).start();
    let expected = scored(&one.client(), TEXT);
    drop(one);
    let two = NodeOptions::new().with(&["--tp", "2"]).start();
    assert_eq!(scored(&two.client(), TEXT), expected);
}

#[test]
fn on_one_thread_and_on_two() {
    let one = NodeOptions::new().with(&["--threads", "1"]).start();
    let expected = scored(&one.client(), TEXT);
    drop(one);
    let two = NodeOptions::new().with(&["--threads", "2"]).start();
    assert_eq!(scored(&two.client(), TEXT), expected);
}

#[test]
fn prefill_scores_a_position_like_decode() {
    let node = Node::start();
    let client = node.client();
    let decoded = generated(&client, TEXT);
    let text = format!("{TEXT}{}", choice(&decoded)["text"].as_str().expect("text"));
    let prefilled = scored(&client, &text);
    let logprobs = |choice: &Value| {
        choice["logprobs"]["token_logprobs"]
            .as_array()
            .expect("a list")
            .clone()
    };
    let decoded = logprobs(choice(&decoded));
    let prefilled = logprobs(&prefilled);
    let start = prefilled.len() - 24 - decoded.len();
    assert_eq!(prefilled[start..start + decoded.len()], decoded[..]);
}
