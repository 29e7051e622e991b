//! Fields and headers beyond the plain request, with a real model.

use serde_json::{Value, json};
use tests::{Client, Node};

/// Some blocks of the cache long.
const STORY: &str = "Once upon a time there was a fox who lived at the edge of a wide and quiet wood. Every morning it \
    went down to the river, looked at the water for a long while, and asked the same question of the old heron that \
    stood there on one leg: where does the river go when it is dark?";

#[test]
fn what_a_request_may_ask_for_beside_its_answer() {
    let node = Node::start();
    let client = node.client();
    scores_of_a_prompt_are_the_same_cached_or_not(&client);
    token_ids_can_be_sent_back(&client);
    a_cut_prompt_is_the_end_of_the_whole_one(&client);
    the_last_message_is_continued(&client);
    the_parts_of_the_time_add_up(&client);
    a_retry_runs_nothing(&client);
}

fn scores_of_a_prompt_are_the_same_cached_or_not(client: &Client) {
    let scored =
        || client.complete(json!({"prompt": STORY, "max_tokens": 1, "seed": 7, "prompt_logprobs": 2}));
    let cold = scored();
    let plain = || client.complete(json!({"prompt": STORY, "max_tokens": 1, "seed": 7}));
    plain();
    assert!(cached_tokens(&plain()) > 0, "the prompt is in the prefix cache");
    let warm = scored();
    assert_eq!(cached_tokens(&warm), 0, "scores are computed, not skipped");
    let scores = &warm["choices"][0]["prompt_logprobs"];
    assert_eq!(scores, &cold["choices"][0]["prompt_logprobs"]);
    let scores = scores.as_array().unwrap();
    assert_eq!(json!(scores.len()), warm["usage"]["prompt_tokens"]);
    assert!(
        scores[0].is_null()
            && scores[1..]
                .iter()
                .all(|score| score.as_object().unwrap().len() >= 2)
    );

    let echo = client.complete(json!({"prompt": STORY, "max_tokens": 0, "echo": true, "logprobs": 1}));
    let echoed = echo["choices"][0]["logprobs"]["token_logprobs"]
        .as_array()
        .unwrap();
    assert_eq!(echo["choices"][0]["text"], STORY);
    assert_eq!(echo["usage"]["completion_tokens"], 0);
    assert_eq!(echoed.len(), scores.len());
    for (score, logprob) in scores.iter().zip(echoed).skip(1) {
        let scores = score.as_object().unwrap().values();
        assert!(
            scores.into_iter().any(|score| score["logprob"] == *logprob),
            "{score} {logprob}"
        );
    }
}

fn cached_tokens(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap()
}

fn token_ids_can_be_sent_back(client: &Client) {
    let asked = json!({"prompt": STORY, "max_tokens": 8, "temperature": 0, "return_token_ids": true});
    let first = client.complete(asked.clone())["choices"][0].take();
    let mut again = asked.clone();
    again["prompt"] = first["prompt_token_ids"].clone();
    let again = client.complete(again)["choices"][0].take();
    assert_eq!(first, again);
    assert_eq!(first["token_ids"].as_array().unwrap().len(), 8);
    let streamed: Vec<Value> = client
        .stream("/v1/completions", asked)
        .filter_map(|chunk| chunk["choices"][0]["token_ids"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(json!(streamed), first["token_ids"]);
}

fn a_cut_prompt_is_the_end_of_the_whole_one(client: &Client) {
    let ids = |body: Value| client.complete(body)["choices"][0]["prompt_token_ids"].take();
    let whole = ids(json!({"prompt": STORY, "max_tokens": 1, "return_token_ids": true}));
    let cut =
        ids(json!({"prompt": STORY, "max_tokens": 1, "return_token_ids": true, "truncate_prompt_tokens": 5}));
    let whole = whole.as_array().unwrap();
    assert_eq!(cut, json!(whole[whole.len() - 5..]));
}

fn the_last_message_is_continued(client: &Client) {
    let messages =
        json!([{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One, two,"}]);
    let answer = client.chat(json!({
        "messages": messages, "continue_final_message": true, "max_tokens": 2, "temperature": 0, "return_token_ids": true,
    }));
    let prompt = answer["prompt_token_ids"].clone();
    let model = client.get("/v1/models").ok()["data"][0]["id"].take();
    let body = json!({"model": model, "tokens": prompt});
    let text = client.post("/detokenize", &body).ok();
    assert!(text["prompt"].as_str().unwrap().ends_with("One, two,"), "{text}");
}

fn the_parts_of_the_time_add_up(client: &Client) {
    let model = client.get("/v1/models").ok()["data"][0]["id"].take();
    let body = json!({"model": model, "prompt": STORY, "max_tokens": 4, "ignore_eos": true});
    let answer = client
        .post_with("/v1/completions", &body, &[("x-cluster-timing", "1")])
        .ok();
    let part = |name: &str| answer["timing"][name].as_f64().unwrap();
    assert!(part("prefill_ms") > 0.0 && part("decode_ms") > 0.0, "{answer}");
    let parts = part("queue_ms") + part("prefill_ms") + part("decode_ms") + part("network_ms");
    assert!((parts - part("total_ms")).abs() < 1e-3, "{answer}");
    assert!(client.post("/v1/completions", &body).ok().get("timing").is_none());
}

fn a_retry_runs_nothing(client: &Client) {
    let model = client.get("/v1/models").ok()["data"][0]["id"].take();
    for is_stream in [false, true] {
        let key = format!("retry-{is_stream}");
        let body = json!({"model": model, "prompt": STORY, "max_tokens": 4, "stream": is_stream});
        let ask = || client.post_with("/v1/completions", &body, &[("idempotency-key", &key)]);
        let first = ask();
        let before = client.metric("cluster_generation_tokens_total");
        let again = ask();
        assert_eq!((first.status, again.status), (200, 200), "{}", again.text);
        assert_eq!(first.text, again.text);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(client.metric("cluster_generation_tokens_total"), before);
    }
}

#[test]
fn a_stream_that_broke_off_goes_on_on_another_node() {
    // Drawn with dice, from a seed that nobody named.
    let body = json!({
        "model": tests::MODEL, "prompt": STORY, "max_tokens": 12, "stream": true, "temperature": 1.5, "ignore_eos": true,
    });
    let ask =
        |node: &Node, headers: &[(&str, &str)]| node.client().post_with("/v1/completions", &body, headers);
    let whole = ask(&Node::start(), &[("idempotency-key", "k")]).text;
    let (at, _) = whole
        .match_indices("id: ")
        .nth(4)
        .expect("five events with an id");
    let id = whole[at + 4..].lines().next().expect("an id");
    let end = at + whole[at..].find("\n\n").expect("events end") + 2;
    let other = Node::start();
    let rest = ask(&other, &[("idempotency-key", "k"), ("last-event-id", id)]);
    assert_eq!(rest.status, 200, "{}", rest.text);
    assert_eq!(undated(&rest.text), undated(&whole[end..]));
    let refused = ask(&other, &[("last-event-id", id)]);
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(refused.body["error"]["param"], "Last-Event-ID");
}

/// Without the time at which it was made.
fn undated(stream: &str) -> Vec<String> {
    let undated = |line: &str| {
        let Some(Ok(mut chunk)) = line
            .strip_prefix("data: ")
            .map(serde_json::from_str::<serde_json::Value>)
        else {
            return line.to_owned();
        };
        chunk["created"] = json!(0);
        chunk.to_string()
    };
    stream.lines().map(undated).collect()
}
