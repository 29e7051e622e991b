//! Answers in one piece.

use super::fake::{CONTEXT_TOKENS_MAX, FakeGateway, ask, finished, hello, post, said, started};
use crate::text::{AddSpecial, SpecialTokens, decode};
use proto::request::{Finish, ServiceClass};
use serde_json::{Value, json};

/// The parts that differ from run to run, made equal.
fn steady(mut answer: Value) -> Value {
    assert!(answer["id"].as_str().is_some_and(|id| id.len() > 32), "{answer}");
    answer["id"] = json!("ID");
    assert!(
        answer["created"]
            .as_u64()
            .is_some_and(|secs| secs > 1_700_000_000),
        "{answer}"
    );
    answer["created"] = json!(0);
    answer
}

#[tokio::test]
async fn a_chat_answer_has_the_shape_that_clients_know() {
    let gateway = FakeGateway::new(hello);
    let answer = post(
        &gateway,
        "/v1/chat/completions",
        json!({"model": "small", "messages": [{"role": "user", "content": "fox"}]}),
    )
    .await;
    let seen = gateway.seen();
    let prompt_tokens = seen.streams[0].prompt.len();
    let tokens = gateway
        .text()
        .tokenizer()
        .encode("The fox", crate::text::AddSpecial::Never)
        .unwrap()
        .len()
        + 1;
    assert_eq!(
        steady(answer.json()),
        json!({
            "id": "ID",
            "object": "chat.completion",
            "created": 0,
            "model": "small",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "The fox", "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": tokens,
                "total_tokens": prompt_tokens + tokens,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
        })
    );
    assert_eq!(
        seen.streams[0].max_new_tokens,
        CONTEXT_TOKENS_MAX - prompt_tokens as u32
    );
    assert_eq!(seen.streams[0].sampling.stop_tokens, [2]);
    assert_eq!(seen.tenant, proto::TenantId(1));
}

#[tokio::test]
async fn the_prompt_of_a_chat_is_what_the_template_makes_of_it() {
    let gateway = FakeGateway::new(hello);
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    post(
        &gateway,
        "/v1/chat/completions",
        json!({"messages": [{"role": "developer", "content": "Be"}, {"role": "user", "content": parts}]}),
    )
    .await;
    let expected =
        "<|im_start|>system\nBe<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n";
    let ids = gateway
        .text()
        .tokenizer()
        .encode(expected, crate::text::AddSpecial::Never)
        .unwrap();
    assert_eq!(gateway.seen().streams[0].prompt.to_vec(), ids);
}

#[tokio::test]
async fn a_completion_has_one_choice_for_each_prompt_and_n_with_index_prompt_times_n_plus_k() {
    let gateway = FakeGateway::new(hello);
    let answer = post(
        &gateway,
        "/v1/completions",
        json!({"prompt": ["fox", [40, 41, 42]], "n": 2, "best_of": 2}),
    )
    .await
    .json();
    let indices: Vec<u64> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    let seen = gateway.seen();
    assert_eq!(seen.streams[2].prompt.to_vec(), [40, 41, 42]);
    assert_eq!(seen.streams[0].prompt, seen.streams[1].prompt);
    assert!(seen.streams.iter().all(|stream| stream.max_new_tokens == 16));
    assert!(
        seen.streams
            .iter()
            .all(|stream| stream.sampling.seed == seen.streams[0].sampling.seed)
    );
    // Each prompt counts once, and so do its cached tokens.
    assert_eq!(
        answer["usage"]["prompt_tokens"],
        json!(seen.streams[0].prompt.len() + 3)
    );
    assert_eq!(
        answer["usage"]["prompt_tokens_details"]["cached_tokens"],
        json!(4)
    );
    assert_eq!(answer["object"], "text_completion");
}

#[tokio::test]
async fn every_parameter_reaches_the_sampler() {
    let gateway = FakeGateway::new(hello);
    let body = json!({
        "prompt": "fox", "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "presence_penalty": 1.5,
        "frequency_penalty": -1.5, "repetition_penalty": 1.25, "logit_bias": {"9": -100, "5": 2.5}, "seed": -1,
        "max_tokens": 9, "min_tokens": 3, "stop_token_ids": [30, 2], "ignore_eos": true, "service_tier": "flex",
        "an_unknown_field": {"is": "ignored"}, "user": "u", "stream_options": {"include_usage": true}, "stop": null,
    });
    let answer = post(&gateway, "/v1/completions", body).await.json();
    assert_eq!(answer["service_tier"], "flex", "{answer}");
    let seen = gateway.seen();
    let sampling = &seen.streams[0].sampling;
    assert_eq!(seen.class, ServiceClass::Flex);
    assert_eq!(seen.streams[0].max_new_tokens, 9);
    assert_eq!(
        (
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            sampling.min_p
        ),
        (0.5, 0.25, 7, 0.125)
    );
    assert_eq!(
        (
            sampling.presence_penalty,
            sampling.frequency_penalty,
            sampling.repetition_penalty
        ),
        (1.5, -1.5, 1.25)
    );
    assert_eq!(sampling.logit_bias, [(5, 2.5), (9, -100.0)]);
    assert_eq!((sampling.seed, sampling.min_tokens), (u64::MAX, 3));
    assert_eq!(sampling.stop_tokens, [2, 30]);
    assert_eq!((sampling.logprobs, sampling.prompt_logprobs), (None, None));
}

#[tokio::test]
async fn without_a_seed_every_request_gets_its_own() {
    let gateway = FakeGateway::new(hello);
    post(&gateway, "/v1/completions", json!({"prompt": "fox"})).await;
    let first = gateway.seen().streams[0].sampling.seed;
    post(&gateway, "/v1/completions", json!({"prompt": "fox"})).await;
    assert_ne!(first, gateway.seen().streams[0].sampling.seed);
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it_and_tells_the_gateway() {
    let gateway = FakeGateway::new(|request, model| {
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, "over the lazy dog. The fox"));
        events.push(finished(0, Finish::Length));
        Ok(events)
    });
    let answer = post(
        &gateway,
        "/v1/completions",
        json!({"prompt": "fox", "stop": ["never", "y do"]}),
    )
    .await
    .json();
    assert_eq!(answer["choices"][0]["text"], "over the laz");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(gateway.signals().ended, [0]);
    assert_eq!(gateway.signals().dropped, 1);
}

#[tokio::test]
async fn no_stop_string_is_looked_for_in_the_first_min_tokens() {
    let gateway = FakeGateway::new(|request, model| {
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, "fox fox fox fox"));
        events.push(finished(0, Finish::Length));
        Ok(events)
    });
    let tokens = gateway
        .text()
        .tokenizer()
        .encode("fox fox", crate::text::AddSpecial::Never)
        .unwrap()
        .len();
    let body = json!({"prompt": "fox", "stop": "fox", "min_tokens": tokens});
    let answer = post(&gateway, "/v1/completions", body).await.json();
    assert_eq!(answer["choices"][0]["text"], "fox fox ");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn echo_gives_the_prompt_back_and_may_ask_for_nothing_more() {
    let gateway = FakeGateway::new(|_, _| Ok(vec![started(0, 0), finished(0, Finish::Length)]));
    let answer = post(
        &gateway,
        "/v1/completions",
        json!({"prompt": "The fox", "echo": true, "max_tokens": 0}),
    )
    .await
    .json();
    assert_eq!(answer["choices"][0]["text"], "The fox");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    assert_eq!(gateway.seen().streams[0].max_new_tokens, 0);
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let gateway = FakeGateway::new(hello);
    let list = ask(&gateway, "GET", "/v1/models", String::new()).await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(
        list["data"][0],
        json!({"id": "small", "object": "model", "created": 7, "owned_by": "cluster", "root": "small", "parent": null, "max_model_len": CONTEXT_TOKENS_MAX})
    );
    assert_eq!(
        ask(&gateway, "GET", "/v1/models/small", String::new())
            .await
            .json(),
        list["data"][0]
    );
    assert_eq!(
        ask(&gateway, "GET", "/v1/models/org/other", String::new())
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn text_becomes_tokens_and_comes_back() {
    let gateway = FakeGateway::new(hello);
    let tokens = post(
        &gateway,
        "/tokenize",
        json!({"prompt": "The fox<|im_end|>", "return_token_strs": true}),
    )
    .await
    .json();
    assert_eq!(tokens["count"], json!(tokens["tokens"].as_array().unwrap().len()));
    assert_eq!(tokens["max_model_len"], CONTEXT_TOKENS_MAX);
    let strings: Vec<&str> = tokens["token_strs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect();
    assert_eq!(strings.concat(), "The fox<|im_end|>");
    let text = post(&gateway, "/detokenize", json!({"tokens": tokens["tokens"]}))
        .await
        .json();
    assert_eq!(text, json!({"prompt": "The fox<|im_end|>"}));
    let chat = post(
        &gateway,
        "/tokenize",
        json!({"messages": [{"role": "user", "content": "fox"}]}),
    )
    .await
    .json();
    assert!(chat["count"].as_u64() > tokens["count"].as_u64());
    let info = ask(&gateway, "GET", "/tokenizer_info", String::new())
        .await
        .json();
    assert_eq!(
        (&info["bos_token"], &info["eos_token"]),
        (&json!("<|im_start|>"), &json!("<|im_end|>"))
    );
}

#[tokio::test]
async fn a_text_of_any_length_becomes_tokens_and_comes_back() {
    let gateway = FakeGateway::new(hello);
    // One or two tokens each, so that parts of the answers end within a character, too.
    for text in ["", "fox", &"漢x".repeat(1_500), &"é".repeat(1_024)] {
        let body = json!({"prompt": text, "add_special_tokens": false, "return_token_strs": true});
        let tokens = post(&gateway, "/tokenize", body).await.json();
        let ids = gateway
            .text()
            .tokenizer()
            .encode(text, AddSpecial::Never)
            .unwrap();
        assert_eq!(tokens["tokens"], json!(ids));
        assert_eq!(tokens["token_strs"].as_array().unwrap().len(), ids.len());
        let back = post(&gateway, "/detokenize", json!({"tokens": ids})).await.json();
        let decoded = decode(gateway.text().vocabulary(), &ids, SpecialTokens::Show);
        assert_eq!(back, json!({"prompt": decoded}));
    }
}

/// What a history may hold of an assistant, and the text that its turn has in the prompt.
#[tokio::test]
async fn an_assistants_turn_without_text_is_an_empty_one_or_its_refusal() {
    for (turn, text) in [
        (json!({"content": null, "refusal": "not this"}), "not this"),
        (json!({"content": "yes", "refusal": "no"}), "yes"),
        (json!({"content": null}), ""),
        (json!({"content": null, "reasoning_content": "well"}), ""),
        (json!({"tool_calls": []}), ""),
    ] {
        let gateway = FakeGateway::new(hello);
        let mut message = turn;
        message["role"] = json!("assistant");
        let messages =
            json!([{"role": "user", "content": "fox"}, message, {"role": "user", "content": "fox"}]);
        let answer = post(&gateway, "/v1/chat/completions", json!({"messages": messages})).await;
        assert_eq!(answer.status, 200, "{message}: {}", answer.text);
        let prompt = gateway.seen().streams[0].prompt.to_vec();
        let prompt = decode(gateway.text().vocabulary(), &prompt, SpecialTokens::Show);
        let expected = format!("<|im_start|>assistant\n{text}<|im_end|>");
        assert!(prompt.contains(&expected), "{message}: {prompt}");
    }
}

#[tokio::test]
async fn the_newer_name_of_the_longest_output_counts_in_chats_and_completions() {
    let chat = json!({"messages": [{"role": "user", "content": "fox"}]});
    for (path, mut body) in [
        ("/v1/chat/completions", chat),
        ("/v1/completions", json!({"prompt": "fox"})),
    ] {
        let gateway = FakeGateway::new(hello);
        body["max_tokens"] = json!(5);
        body["max_completion_tokens"] = json!(2);
        assert_eq!(post(&gateway, path, body).await.status, 200);
        assert_eq!(gateway.seen().streams[0].max_new_tokens, 2, "{path}");
    }
}

#[tokio::test]
async fn every_tier_that_clients_know_has_a_class() {
    for (tier, class) in [
        ("auto", ServiceClass::Default),
        ("default", ServiceClass::Default),
        ("scale", ServiceClass::Default),
        ("flex", ServiceClass::Flex),
        ("priority", ServiceClass::Priority),
        ("fast", ServiceClass::Priority),
    ] {
        let gateway = FakeGateway::new(hello);
        let body = json!({"prompt": "fox", "service_tier": tier});
        let answer = post(&gateway, "/v1/completions", body).await;
        assert_eq!(answer.json()["service_tier"], tier);
        assert_eq!(gateway.seen().class, class, "{tier}");
    }
}
