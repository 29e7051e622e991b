//! Lists where objects are due: they are never read field by field.

use super::fake::{FakeGateway, ask, hello, post};
use serde_json::{Value, json};

const FIELDS_MAX: usize = 150;

/// Of every length: one is that of the struct, all of whose fields but the first may be null.
#[tokio::test]
async fn a_body_that_is_a_list_of_its_fields_is_refused() {
    let gateway = FakeGateway::new(hello);
    for (path, first) in [
        ("/detokenize", r#""fox", [1]"#),
        ("/tokenize", r#"null, "fox""#),
        ("/v1/completions", r#""fox""#),
        ("/v1/chat/completions", r#"[{"role": "user", "content": "fox"}]"#),
    ] {
        for nulls in 0..FIELDS_MAX {
            let body = format!("[{first}{}]", ", null".repeat(nulls));
            let answer = ask(&gateway, "POST", path, body).await;
            assert_eq!(answer.status, 400, "{path}, {nulls}: {}", answer.text);
            assert_eq!(
                answer.json()["error"],
                json!({
                    "message": "the body is not a JSON object",
                    "type": "invalid_request_error",
                    "param": null,
                    "code": "invalid_json",
                }),
                "{path}, {nulls}"
            );
        }
    }
}

#[tokio::test]
async fn a_list_is_taken_for_no_object_within_a_body() {
    let gateway = FakeGateway::new(hello);
    let function = json!({"name": "f"});
    let called = |calls: Value| json!([{"role": "assistant", "tool_calls": calls}]);
    for (field, value, place) in [
        ("messages", json!([["user", "fox"]]), "messages"),
        (
            "messages",
            json!([{"role": "user", "content": [["text", "fox"]]}]),
            "messages[0].content",
        ),
        (
            "messages",
            called(json!([["a", "function", function]])),
            "messages[0].tool_calls",
        ),
        (
            "messages",
            called(json!([{"function": ["f", "{}"]}])),
            "messages[0].tool_calls[0].function",
        ),
        ("tools", json!([["function", function]]), "tools"),
        (
            "tools",
            json!([{"type": "function", "function": ["f", null, null, null]}]),
            "tools[0].function",
        ),
        ("tool_choice", json!(["function", function]), "tool_choice"),
        (
            "tool_choice",
            json!({"type": "function", "function": ["f"]}),
            "tool_choice.function",
        ),
        ("stream_options", json!([true, true]), "stream_options"),
        ("response_format", json!(["json_object", null]), "response_format"),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": [{"type": "object"}, true]}),
            "response_format.json_schema",
        ),
        (
            "structured_outputs",
            json!([null, "a+", null, null, null, null, null, null, null]),
            "structured_outputs",
        ),
        ("service_tier", json!({"flex": null}), "service_tier"),
        (
            "response_format",
            json!({"type": {"text": null}}),
            "response_format.type",
        ),
    ] {
        let mut body = json!({
            "messages": [{"role": "user", "content": "fox"}],
            "tools": [{"type": "function", "function": function}],
        });
        body[field] = value;
        let answer = post(&gateway, "/v1/chat/completions", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert_eq!(answer.error_param(), place, "{body}: {}", answer.text);
        assert!(answer.text.contains(" must be "), "{body}: {}", answer.text);
    }
}
