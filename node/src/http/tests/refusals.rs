//! Requests that are refused, each with the field that is to blame.

use super::fake::{FakeGateway, KEY, ask, hello, post, send};
use crate::text::tests::byte_model;
use axum::http::Request;
use proto::Span;
use proto::request::Refusal;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn with(base: Value, name: &str, value: Value) -> Value {
    let mut body = base;
    body[name] = value;
    body
}

pub async fn assert_refused(gateway: &Arc<FakeGateway>, path: &str, body: Value, param: &str) {
    let answer = post(gateway, path, body.clone()).await;
    assert_eq!(answer.status, 400, "{body}: {}", answer.text);
    assert_eq!(answer.error_param(), param, "{body}: {}", answer.text);
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn bad_values_of_shared_fields_are_refused_by_name() {
    let gateway = FakeGateway::new(hello);
    let bad = [
        ("temperature", json!(-0.1)),
        ("temperature", json!(2.1)),
        ("temperature", json!("hot")),
        ("temperature", json!(1e300)),
        ("top_p", json!(0)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-2)),
        ("top_k", json!(1.5)),
        ("min_p", json!(-1)),
        ("presence_penalty", json!(3)),
        ("frequency_penalty", json!([1])),
        ("repetition_penalty", json!(0)),
        ("logit_bias", json!({"no number": 1})),
        ("logit_bias", json!({"99999": 1})),
        ("logit_bias", json!({"5": 101})),
        ("logit_bias", json!([5])),
        ("n", json!(0)),
        ("n", json!(65)),
        ("best_of", json!(2)),
        ("seed", json!(0.5)),
        ("seed", json!(1e30)),
        ("stop", json!(5)),
        ("stop", json!([""])),
        ("stop", json!([5])),
        ("stop", json!(vec!["x"; 17])),
        ("stop_token_ids", json!([99999])),
        ("stop_token_ids", json!(["a"])),
        ("stop_token_ids", json!((0..200).collect::<Vec<u32>>())),
        ("min_tokens", json!(-1)),
        ("min_tokens", json!(5000)),
        ("ignore_eos", json!("yes")),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(100)),
        ("max_completion_tokens", json!(1e12)),
        ("stream", json!("true")),
        ("service_tier", json!("gold")),
        ("service_tier", json!(1)),
        ("service_tier", json!(["flex"])),
        ("prompt_logprobs", json!(21)),
        ("include_stop_str_in_output", json!(1)),
        ("truncate_prompt_tokens", json!(0)),
        ("truncate_prompt_tokens", json!(-2)),
        ("return_token_ids", json!("yes")),
        ("bad_words", json!(["a"])),
        ("allowed_token_ids", json!([5])),
        ("documents", json!([{"text": "a"}])),
        ("thinking_token_budget", json!(5)),
        ("logprob_token_ids", json!([5])),
        ("prompt_embeds", json!("AAAA")),
        ("repetition_detection", json!({"max_pattern_size": 4})),
        ("length_penalty", json!(0)),
        ("length_penalty", json!(1.2)),
        ("length_penalty", json!("1")),
        ("typical_p", json!(0.9)),
        ("mirostat", json!(2)),
        ("dry_multiplier", json!(0.8)),
        ("xtc_probability", json!(0.5)),
        ("tfs", json!(0.9)),
        ("tfs_z", json!(0.9)),
        ("no_repeat_ngram_size", json!(3)),
        ("priority", json!(5)),
        ("priority", json!(-1)),
        ("priority", json!("high")),
        ("kv_transfer_params", json!({"do_remote_prefill": true})),
        ("top_a", json!(0.1)),
        ("repeat_penalty", json!(1.1)),
        ("max_new_tokens", json!(5)),
        ("min_new_tokens", json!(5)),
        ("truncation_side", json!("right")),
        ("truncation_side", json!(1)),
        ("cache_salt", json!("a")),
        ("grammar", json!("root ::= \"a\"")),
        ("json_schema", json!({"type": "object"})),
        ("regex", json!("a+")),
        ("ebnf", json!("root ::= \"a\"")),
        ("stop_regex", json!("a+")),
        ("stop_regex", json!(["a+"])),
        ("no_stop_trim", json!(true)),
        ("n_predict", json!(5)),
        ("n_predict", json!(-1)),
        ("top_n_sigma", json!(1)),
        ("top_n_sigma", json!("1")),
        ("dynatemp_range", json!(0.5)),
        ("spaces_between_special_tokens", json!(false)),
        ("enable_thinking", json!(true)),
        ("enable_thinking", json!(false)),
        ("verbosity", json!("low")),
        ("verbosity", json!(1)),
        ("model", json!(5)),
    ];
    for (param, value) in bad {
        assert_refused(
            &gateway,
            "/v1/completions",
            with(json!({"prompt": "fox"}), param, value.clone()),
            param,
        )
        .await;
        let chat = json!({"messages": [{"role": "user", "content": "fox"}]});
        assert_refused(&gateway, "/v1/chat/completions", with(chat, param, value), param).await;
    }
}

#[tokio::test]
async fn bad_prompts_are_refused_by_name() {
    let gateway = FakeGateway::new(hello);
    for prompt in [
        json!(null),
        json!(5),
        json!(""),
        json!([]),
        json!([[]]),
        json!([99999]),
        json!([-1]),
        json!([1, "a"]),
        json!([{}]),
    ] {
        assert_refused(&gateway, "/v1/completions", json!({"prompt": prompt}), "prompt").await;
    }
    assert_refused(
        &gateway,
        "/v1/completions",
        json!({"prompt": "fox", "suffix": "x"}),
        "suffix",
    )
    .await;
    assert_refused(
        &gateway,
        "/v1/completions",
        json!({"prompt": "fox", "logprobs": 21}),
        "logprobs",
    )
    .await;
    assert_refused(
        &gateway,
        "/v1/completions",
        json!({"prompt": "fox", "logprobs": true}),
        "logprobs",
    )
    .await;
    assert_refused(
        &gateway,
        "/v1/completions",
        json!({"prompt": vec!["fox"; 65], "n": 2}),
        "n",
    )
    .await;
}

#[tokio::test]
async fn bad_messages_are_refused_by_place() {
    let gateway = FakeGateway::new(hello);
    let cases = [
        (json!(null), "messages"),
        (json!("fox"), "messages"),
        (json!([]), "messages"),
        (json!([{"content": "a"}]), "messages[0].role"),
        (json!([{"role": "wizard", "content": "a"}]), "messages[0].role"),
        (json!([{"role": 5, "content": "a"}]), "messages[0].role"),
        (
            json!([{"role": "assistant", "content": "a", "function_call": {"name": "f"}}]),
            "messages[0].function_call",
        ),
        (
            json!([{"role": "assistant", "content": "a", "prefix": true}]),
            "messages[0].prefix",
        ),
        (
            json!([{"role": "user", "content": "a"}, {"role": "function", "content": "a"}]),
            "messages[1].role",
        ),
        (json!([{"role": "user"}]), "messages[0].content"),
        (
            json!([{"role": "user", "content": [{"type": "image_url"}]}]),
            "messages[0].content[0].type",
        ),
        (
            json!([{"role": "user", "content": [{"text": "a"}]}]),
            "messages[0].content[0].type",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0].text",
        ),
        (
            json!([{"role": "user", "content": null, "refusal": "a"}]),
            "messages[0].content",
        ),
        (
            json!([{"role": "assistant", "content": "a", "tool_calls": [{}]}]),
            "messages[0].tool_calls[0].function",
        ),
        // The template's own objection.
        (
            json!([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]),
            "messages",
        ),
    ];
    for (messages, param) in cases {
        assert_refused(
            &gateway,
            "/v1/chat/completions",
            json!({"messages": messages}),
            param,
        )
        .await;
    }
    let chat = json!({"messages": [{"role": "user", "content": "fox"}]});
    assert_refused(
        &gateway,
        "/v1/chat/completions",
        with(chat.clone(), "top_logprobs", json!(2)),
        "top_logprobs",
    )
    .await;
    assert_refused(
        &gateway,
        "/v1/chat/completions",
        with(chat, "echo", json!(true)),
        "echo",
    )
    .await;
}

#[tokio::test]
async fn what_only_chats_have_is_refused_of_completions() {
    let gateway = FakeGateway::new(hello);
    let function = json!({"type": "function", "function": {"name": "f"}});
    for (param, value) in [
        ("tools", json!([function])),
        ("tool_choice", json!("required")),
        ("tool_choice", function),
        ("top_logprobs", json!(5)),
        ("top_logprobs", json!(true)),
    ] {
        let body = with(json!({"prompt": "fox", "logprobs": 1}), param, value);
        assert_refused(&gateway, "/v1/completions", body, param).await;
    }
    let without_tools = json!({"prompt": "fox", "tool_choice": "auto"});
    assert_eq!(post(&gateway, "/v1/completions", without_tools).await.status, 200);
}

#[tokio::test]
async fn a_prompt_longer_than_the_context_is_refused_as_such() {
    let answer = post(
        &FakeGateway::new(hello),
        "/v1/completions",
        json!({"prompt": vec![40; 101]}),
    )
    .await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
    assert_eq!(answer.error_param(), "prompt");
}

/// litellm looks for the first sentence, langchain for the beginning of the second.
#[tokio::test]
async fn what_does_not_fit_the_context_is_said_in_the_words_that_clients_know() {
    let gateway = FakeGateway::new(hello);
    let words = "This model's maximum context length is 100 tokens. However, the prompt is too long: ";
    for (body, needed) in [
        (json!({"prompt": vec![40; 101]}), "it has 101 tokens."),
        (
            json!({"prompt": vec![40; 90], "max_tokens": 11}),
            "it has 90 tokens and 11 more are asked for.",
        ),
    ] {
        let answer = post(&gateway, "/v1/completions", body).await;
        assert_eq!(
            answer.json()["error"]["message"],
            format!("{words}{needed}"),
            "{}",
            answer.text
        );
    }
    let refused = FakeGateway::new(|_, _| {
        Err(Refusal::TooLong {
            tokens: 101,
            tokens_max: 100,
        })
    });
    let answer = post(&refused, "/v1/completions", json!({"prompt": "fox"})).await;
    assert_eq!(
        answer.json()["error"]["message"],
        format!("{words}with its output it needs 101 tokens.")
    );
}

#[tokio::test]
async fn a_text_that_no_tokens_could_fit_into_the_context_is_refused_by_its_length() {
    // Its longest token is `<|endoftext|>`.
    let gateway = FakeGateway::with_model(hello, byte_model("{{ messages[0].content }}", &[]), 20);
    let prompt = |bytes| json!({"prompt": "<".repeat(bytes), "max_tokens": 1});
    let chat = json!({"messages": [{"role": "user", "content": "<".repeat(261)}]});
    for (path, body, param) in [
        ("/v1/completions", prompt(261), "prompt"),
        ("/v1/chat/completions", chat, "messages"),
    ] {
        let answer = post(&gateway, path, body).await;
        assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
        assert_eq!(answer.error_param(), param);
        assert!(answer.text.contains("at least 21 tokens"), "{}", answer.text);
    }
    let counted = post(&gateway, "/v1/completions", prompt(260)).await;
    assert!(counted.text.contains("it has 260 tokens"), "{}", counted.text);
    let mut cut = prompt(261);
    cut["truncate_prompt_tokens"] = json!(5);
    assert_eq!(post(&gateway, "/v1/completions", cut).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_no_json_objects_are_refused() {
    for body in ["", "{", "[]", "\"prompt\"", "{\"prompt\": NaN}"] {
        let answer = ask(&FakeGateway::new(hello), "POST", "/v1/completions", body.into()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["error"]["code"].clone()),
            (400, json!("invalid_json"))
        );
    }
    let nested = "[".repeat(100_000);
    assert_eq!(
        ask(&FakeGateway::new(hello), "POST", "/v1/completions", nested)
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_compressed_body_is_refused_by_its_name() {
    for (encoding, status) in [("gzip", 415), ("identity", 200)] {
        let request = Request::post("/v1/completions")
            .header("authorization", format!("Bearer {KEY}"))
            .header("content-encoding", encoding)
            .body(json!({"prompt": "fox"}).to_string().into())
            .unwrap();
        let answer = send(&FakeGateway::new(hello), request).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_field_that_comes_twice_or_hides_in_depth_is_refused() {
    let gateway = FakeGateway::new(hello);
    let twice = r#"{"prompt": "fox", "temperature": 0, "temperature": 1}"#;
    let answer = ask(&gateway, "POST", "/v1/completions", twice.into()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error_param().as_str()),
        (400, "temperature")
    );
    for unknown in ["prompt_x", "metadata"] {
        let nested = format!(
            r#"{{"prompt": "fox", "{unknown}": {}{}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        assert_eq!(ask(&gateway, "POST", "/v1/completions", nested).await.status, 400);
    }
}

#[tokio::test]
async fn a_complaint_says_what_was_expected_and_where_and_repeats_no_text() {
    let gateway = FakeGateway::new(hello);
    let messages = json!([{"role": "user", "content": "fox"}, {"role": "user", "content": [{"type": "text", "text": 5}]}]);
    let answer = post(&gateway, "/v1/chat/completions", json!({"messages": messages})).await;
    assert_eq!(answer.error_param(), "messages[1].content[0].text");
    let answer = post(
        &gateway,
        "/v1/completions",
        json!({"prompt": "fox", "top_k": "secret words"}),
    )
    .await;
    let message = answer.json()["error"]["message"].clone();
    assert_eq!(message, "`top_k` must be an integer from -1 to 4294967295");
    let body = json!({"prompt": "fox", "stream_options": {"include_usage": 1}});
    assert_refused(&gateway, "/v1/completions", body, "stream_options.include_usage").await;
}

/// serde_json would take them for broken JSON.
#[tokio::test]
async fn a_value_that_no_type_could_hold_is_called_what_it_is() {
    let gateway = FakeGateway::new(hello);
    let digits = "9".repeat(400);
    for (body, message) in [
        (
            format!(r#"{{"prompt": "fox", "seed": {digits}}}"#),
            "`seed` is a number beyond all bounds",
        ),
        (
            r#"{"prompt": "hi \ud83d"}"#.to_owned(),
            "`prompt` has half of a character: \\ud800 to \\udfff stand for one in pairs only",
        ),
        (
            r#"{"prompt": "hi \udc00 you"}"#.to_owned(),
            "`prompt` has half of a character: \\ud800 to \\udfff stand for one in pairs only",
        ),
        (
            r#"{"prompt": "fox", "service_tier": 5}"#.to_owned(),
            "`service_tier` must be auto, default, flex, priority, scale or fast",
        ),
    ] {
        let answer = ask(&gateway, "POST", "/v1/completions", body).await;
        assert_eq!(answer.json()["error"]["message"], message);
        assert_eq!(answer.status, 400);
    }
}

#[tokio::test]
async fn a_role_that_nobody_has_is_met_with_those_there_are() {
    let gateway = FakeGateway::new(hello);
    let body = json!({"messages": [{"role": "wizard", "content": "a"}]});
    let answer = post(&gateway, "/v1/chat/completions", body).await;
    assert_eq!(
        answer.json()["error"]["message"],
        "`messages[0].role` must be system, developer, user, assistant or tool"
    );
}

#[tokio::test]
async fn a_template_of_the_clients_own_is_refused_wherever_one_is_used() {
    let gateway = FakeGateway::new(hello);
    let chat = json!({"messages": [{"role": "user", "content": "fox"}], "chat_template": "x"});
    for path in ["/v1/chat/completions", "/tokenize"] {
        assert_refused(&gateway, path, chat.clone(), "chat_template").await;
    }
}

#[tokio::test]
async fn the_templates_own_names_cannot_be_set() {
    let gateway = FakeGateway::new(hello);
    let chat = json!({"messages": [{"role": "user", "content": "fox"}]});
    // With what stands around it in JSON.
    let of_bytes = |bytes: usize| json!({"x": "y".repeat(bytes - r#"{"x":""}"#.len())});
    for kwargs in [
        json!({"messages": []}),
        json!({"bos_token": "x"}),
        json!([]),
        of_bytes(65_537),
    ] {
        let body = with(chat.clone(), "chat_template_kwargs", kwargs);
        assert_refused(&gateway, "/v1/chat/completions", body, "chat_template_kwargs").await;
    }
    for kwargs in [json!({"enable_thinking": false}), of_bytes(65_536)] {
        let body = with(chat.clone(), "chat_template_kwargs", kwargs);
        assert_eq!(post(&gateway, "/v1/chat/completions", body).await.status, 200);
    }
}

#[tokio::test]
async fn json_of_free_form_has_a_bound_of_values() {
    let gateway = FakeGateway::new(hello);
    let many = json!({"a": vec![1; 40_000]});
    let user = json!({"role": "user", "content": "fox"});
    let called = |arguments: Value| {
        let calls = json!([{"function": {"name": "f", "arguments": arguments}}]);
        json!([user, {"role": "assistant", "tool_calls": calls}])
    };
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": many}}]);
    for (field, value) in [
        ("tools", tools),
        ("messages", called(many.clone())),
        ("messages", called(json!(many.to_string()))),
    ] {
        let body = with(json!({"messages": [user]}), field, value);
        assert_refused(&gateway, "/v1/chat/completions", body, field).await;
    }
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_too_large() {
    let body = json!({"prompt": "x".repeat(5 << 20)});
    assert_eq!(
        post(&FakeGateway::new(hello), "/v1/completions", body)
            .await
            .status,
        413
    );
    // Text that becomes tokens and nothing else may be longer: escaped, 4 MB are 12.
    let body = json!({"prompt": "x".repeat(5 << 20)});
    let answer = post(&FakeGateway::new(hello), "/tokenize", body).await;
    assert_eq!(answer.status, 200);
    let body = json!({"prompt": "x".repeat(17 << 20)});
    let answer = post(&FakeGateway::new(hello), "/tokenize", body).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn neither_text_nor_messages_is_told_of_both() {
    let answer = post(&FakeGateway::new(hello), "/tokenize", json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error_param()),
        (400, "prompt".to_owned())
    );
}

#[tokio::test]
async fn a_model_that_will_be_served_is_worth_another_try() {
    let body = json!({"model": "awaited", "prompt": "fox"});
    let answer = post(&FakeGateway::new(hello), "/v1/completions", body).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let answer = post(
        &FakeGateway::new(hello),
        "/v1/completions",
        json!({"model": "other", "prompt": "fox"}),
    )
    .await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["code"].clone()),
        (404, json!("model_not_found"))
    );
}

#[tokio::test]
async fn a_full_queue_is_429_and_a_missing_replica_503_with_the_time_to_wait() {
    let busy = FakeGateway::new(|_, _| {
        Err(Refusal::Busy {
            retry_after: Span::from_millis(1_500),
        })
    });
    let answer = post(&busy, "/v1/completions", json!({"prompt": "fox", "stream": true})).await;
    assert_eq!(answer.status, 429);
    assert_eq!(
        (&answer.headers["retry-after"], &answer.headers["retry-after-ms"]),
        (&"2".parse().unwrap(), &"1500".parse().unwrap())
    );
    let gone = FakeGateway::new(|_, _| {
        Err(Refusal::Unavailable {
            retry_after: Span::ZERO,
        })
    });
    let answer = post(&gone, "/v1/completions", json!({"prompt": "fox"})).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["retry-after"]),
        (503, &"1".parse().unwrap())
    );
}
