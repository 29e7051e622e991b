//! What is sent is what the description says of it: every property is described, and what must come does.

use super::extras::scored;
use super::fake::{Answer, FakeGateway, KEY, failed, hello, send, started};
use super::tools;
use crate::gateway::StreamFailure;
use crate::http::openapi;
use axum::http::Request;
use serde_json::{Value, json};
use std::sync::Arc;

struct Document(Value);

impl Document {
    fn new() -> Document {
        Document(serde_json::from_str(&openapi::page()).unwrap())
    }

    /// The schema of what a route answers in this form.
    fn answer<'a>(&'a self, path: &str, form: &str) -> &'a Value {
        let schema = &self.0["paths"][path]["post"]["responses"]["200"]["content"][form]["schema"];
        assert!(schema.is_object(), "{path} {form}");
        schema
    }

    /// # Errors
    /// Where it is not.
    fn check(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.0.pointer(&reference[1..]).unwrap();
            return self.check(target, value, place);
        }
        if let Some(schemas) = schema["anyOf"].as_array() {
            let tried = schemas.iter().map(|schema| self.check(schema, value, place));
            let faults: Vec<String> = tried.filter_map(Result::err).collect();
            return match faults.len() < schemas.len() {
                true => Ok(()),
                false => Err(faults.join("; or ")),
            };
        }
        let fault = |words: &str| Err(format!("{place} {words}: {value}"));
        if schema.get("const").is_some_and(|only| only != value) {
            return fault("is another constant");
        }
        if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
            return fault("is none of the enum");
        }
        if !has_type(&schema["type"], value) {
            return fault("has another type");
        }
        self.check_parts(schema, value, place)
    }

    fn check_parts(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        for item in value.as_array().into_iter().flatten() {
            self.check(&schema["items"], item, &format!("{place}[]"))?;
        }
        for (name, part) in value.as_object().into_iter().flatten() {
            let described = schema["properties"].get(name);
            let described = described.or(schema.get("additionalProperties"));
            let schema = described.ok_or_else(|| format!("{place}.{name} is not described"))?;
            self.check(schema, part, &format!("{place}.{name}"))?;
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            if value.get(name).is_none() {
                return Err(format!("{place}.{name} is missing"));
            }
        }
        Ok(())
    }
}

/// No type: any.
fn has_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    };
    match types {
        Value::Null => true,
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

async fn ask(gateway: &Arc<FakeGateway>, path: &str, body: &Value) -> Answer {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {KEY}"))
        .header("x-cluster-timing", "1")
        .body(body.to_string().into());
    let answer = send(gateway, request.unwrap()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    answer
}

/// Asks for it whole and as a stream, with its usage in every way there is.
async fn assert_described(gateway: &Arc<FakeGateway>, path: &str, mut body: Value) {
    let document = Document::new();
    let whole = ask(gateway, path, &body).await.json();
    document
        .check(document.answer(path, "application/json"), &whole, "answer")
        .unwrap();
    if body.get("prompt_logprobs").is_some() {
        return;
    }
    body["stream"] = json!(true);
    let schema = document.answer(path, "text/event-stream");
    for (at_end, on_chunks) in [(false, false), (true, false), (true, true)] {
        body["stream_options"] = json!({"include_usage": at_end, "continuous_usage_stats": on_chunks});
        for chunk in ask(gateway, path, &body).await.chunks() {
            document
                .check(schema, &chunk, "chunk")
                .unwrap_or_else(|fault| panic!("{fault} in {chunk}"));
        }
    }
}

#[tokio::test]
async fn chats_and_completions_are_sent_as_they_are_described() {
    let user = json!([{"role": "user", "content": "fox"}]);
    let gateway = FakeGateway::new(hello);
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": user})),
        (
            "/v1/chat/completions",
            json!({"messages": user, "n": 2, "logprobs": true, "top_logprobs": 2, "return_token_ids": true,
                "service_tier": "flex"}),
        ),
        ("/v1/completions", json!({"prompt": ["fox", "fox"]})),
        (
            "/v1/completions",
            json!({"prompt": "fox", "logprobs": 2, "return_token_ids": true, "service_tier": "auto", "n": 2}),
        ),
    ] {
        assert_described(&gateway, path, body).await;
    }
    let scores = FakeGateway::new(|request, _| Ok(scored(&request.streams[0].prompt)));
    let echo =
        json!({"prompt": [40, 41], "echo": true, "max_tokens": 0, "logprobs": 1, "prompt_logprobs": 3});
    assert_described(&scores, "/v1/completions", echo).await;
    let chat = json!({"messages": user, "prompt_logprobs": 1});
    assert_described(&scores, "/v1/chat/completions", chat).await;
}

#[tokio::test]
async fn calls_and_thoughts_are_sent_as_they_are_described() {
    let calls = tools::gateway(tools::two_calls);
    assert_described(
        &calls,
        "/v1/chat/completions",
        tools::chat(json!({"logprobs": true})),
    )
    .await;
    let thoughts = tools::gateway(tools::thinks_and_calls);
    let thinking = json!({"chat_template_kwargs": {"thinking": true}, "return_token_ids": true});
    assert_described(&thoughts, "/v1/chat/completions", tools::chat(thinking)).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_as_described() {
    let gateway = FakeGateway::new(|_, _| Ok(vec![started(0, 0), failed(0, StreamFailure::SlowReader)]));
    let body = json!({"prompt": "fox", "stream": true});
    let text = ask(&gateway, "/v1/completions", &body).await.text;
    let last = text.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    let chunk: Value = serde_json::from_str(&last["data: ".len()..]).unwrap();
    assert!(chunk["error"].is_object(), "{chunk}");
    let document = Document::new();
    let schema = document.answer("/v1/completions", "text/event-stream");
    document.check(schema, &chunk, "chunk").unwrap();
}

#[test]
fn what_is_not_described_is_found() {
    let document = Document::new();
    let usage = &document.0["components"]["schemas"]["Usage"];
    let mut value = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}});
    assert_eq!(document.check(usage, &value, "usage"), Ok(()));
    value["total_tokens"] = json!("2");
    assert!(document.check(usage, &value, "usage").is_err());
    value["total_tokens"] = json!(2);
    value["more"] = json!(1);
    assert!(document.check(usage, &value, "usage").is_err());
}
