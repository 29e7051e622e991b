//! What form the answer must have: from the fields of a request to a grammar.

use super::fake::{FakeGateway, finished, hello, post, started};
use crate::constraint::spacing;
use proto::request::{Finish, Grammar};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn chat_with(field: &str, value: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "fox"}], "n": 2});
    body[field] = value;
    body
}

fn schema_format(schema: Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}})
}

fn json_schema(schema: Value) -> Grammar {
    Grammar::JsonSchema(schema.to_string())
}

#[tokio::test]
async fn every_way_to_ask_for_a_form_becomes_a_grammar_of_every_choice() {
    let number = json!({"type": "number"});
    let options = ["a", "b"].map(str::to_owned).to_vec();
    let lark = "start: \"a\" \"b\"?";
    let asked = [
        (
            "response_format",
            json!({"type": "json_object"}),
            Grammar::JsonObject,
        ),
        (
            "response_format",
            schema_format(number.clone()),
            json_schema(number.clone()),
        ),
        (
            "response_format",
            json!({"type": "json_object", "schema": number}),
            json_schema(number.clone()),
        ),
        (
            "structured_outputs",
            json!({"json": number}),
            json_schema(number.clone()),
        ),
        (
            "structured_outputs",
            json!({"json": number.to_string()}),
            json_schema(number.clone()),
        ),
        (
            "structured_outputs",
            json!({"json_object": true}),
            Grammar::JsonObject,
        ),
        (
            "structured_outputs",
            json!({"regex": "a+"}),
            Grammar::Regex("a+".to_owned()),
        ),
        (
            "structured_outputs",
            json!({"choice": options}),
            Grammar::Choice(options.clone()),
        ),
        (
            "structured_outputs",
            json!({"grammar": lark}),
            Grammar::Lark(lark.to_owned()),
        ),
        ("guided_json", number.clone(), json_schema(number.clone())),
        ("guided_regex", json!("a+"), Grammar::Regex("a+".to_owned())),
        ("guided_choice", json!(options), Grammar::Choice(options.clone())),
        ("guided_grammar", json!(lark), Grammar::Lark(lark.to_owned())),
    ];
    for (field, value, grammar) in asked {
        let gateway = FakeGateway::new(hello);
        let body = chat_with(field, value);
        let answer = post(&gateway, CHAT, body.clone()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
        let streams = gateway.seen().streams;
        assert_eq!(streams.len(), 2);
        assert!(
            streams
                .iter()
                .all(|stream| stream.sampling.grammar.as_ref() == Some(&grammar)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_form_that_asks_for_nothing_leaves_the_answer_free() {
    for (field, value) in [
        ("response_format", json!({"type": "text"})),
        ("response_format", json!(null)),
        ("structured_outputs", json!({})),
        (
            "structured_outputs",
            json!({"choice": null, "json_object": false, "structural_tag": "", "disable_any_whitespace": false}),
        ),
        ("guided_json", json!(null)),
        ("guided_regex", json!(null)),
    ] {
        let gateway = FakeGateway::new(hello);
        assert_eq!(post(&gateway, CHAT, chat_with(field, value)).await.status, 200);
        assert_eq!(gateway.seen().streams[0].sampling.grammar, None, "{field}");
    }
}

#[tokio::test]
async fn an_empty_form_is_no_leave_to_answer_freely() {
    let inner = |name: &str, value: Value| ("structured_outputs", json!({name: value}));
    for (field, value) in [
        inner("choice", json!([])),
        inner("regex", json!("")),
        inner("grammar", json!("")),
        inner("json", json!("")),
        inner("json", json!([])),
        ("guided_choice", json!([])),
        ("guided_regex", json!("")),
        ("guided_grammar", json!("")),
        ("guided_json", json!("")),
        ("guided_json", json!(false)),
    ] {
        let body = chat_with(field, value);
        let answer = post(&FakeGateway::new(hello), CHAT, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        let param = answer.error_param();
        match body[field].as_object().and_then(|forms| forms.keys().next()) {
            Some(form) => assert_eq!(param, format!("{field}.{form}")),
            None => assert_eq!(param, field),
        }
    }
}

#[tokio::test]
async fn json_of_any_field_may_be_asked_for_without_white_space() {
    let compact = |schema: &str| Grammar::JsonSchema(spacing::compact(schema));
    let number = "{\"type\":\"number\"}";
    for (mut forms, expected) in [
        (json!({}), None),
        (json!({"guided_regex": "a"}), None),
        (
            json!({"response_format": {"type": "json_object"}}),
            Some(compact("{\"type\":\"object\"}")),
        ),
        (
            json!({"response_format": schema_format(json!({"type": "number"}))}),
            Some(compact(number)),
        ),
        (json!({"guided_json": number}), Some(compact(number))),
    ] {
        forms["prompt"] = json!("fox");
        forms["structured_outputs"] = json!({"disable_any_whitespace": true});
        let gateway = FakeGateway::new(hello);
        let answer = post(&gateway, "/v1/completions", forms).await;
        match expected {
            Some(grammar) => assert_eq!(gateway.seen().streams[0].sampling.grammar, Some(grammar)),
            None => assert_eq!(answer.error_param(), "structured_outputs.disable_any_whitespace"),
        }
    }
}

#[tokio::test]
async fn a_form_that_cannot_be_kept_is_refused_before_it_is_admitted_and_says_why() {
    for (field, value, word) in [
        ("response_format", schema_format(json!({"not": {}})), "not"),
        (
            "response_format",
            schema_format(json!({"type": "array", "uniqueItems": true})),
            "uniqueItems",
        ),
        (
            "response_format",
            schema_format(json!({"type": "string", "pattern": "(?=a)"})),
            "look",
        ),
        ("response_format", schema_format(json!(5)), "object"),
        ("response_format", json!({"type": "json_schema"}), "missing"),
        ("response_format", json!({"type": "yaml"}), "json_schema"),
        (
            "response_format",
            json!({"type": "text", "schema": {}}),
            "`response_format.type` is `json_object`",
        ),
        (
            "response_format",
            json!({"type": "json_object", "json_schema": {"schema": {}}}),
            "`response_format.type` is `json_schema`",
        ),
        ("response_format", json!("json_object"), "object"),
        ("structured_outputs", json!({"regex": "("}), "regex"),
        (
            "structured_outputs",
            json!({"regex": "a", "json": {}}),
            "more than one",
        ),
        (
            "structured_outputs",
            json!({"structural_tag": "{}"}),
            "structural_tag",
        ),
        ("structured_outputs", json!({"choice": [5]}), "string"),
        ("guided_json", json!([1]), "schema"),
        ("guided_grammar", json!("root ::= \"a\""), "Lark"),
        (
            "guided_whitespace_pattern",
            json!(" "),
            "guided_whitespace_pattern",
        ),
    ] {
        let gateway = FakeGateway::new(hello);
        let body = chat_with(field, value);
        let answer = post(&gateway, CHAT, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(answer.error_param().starts_with(field), "{body}: {}", answer.text);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(word), "{body}: {message}");
    }
    let mut two = chat_with("guided_regex", json!("a"));
    two["response_format"] = json!({"type": "json_object"});
    let answer = post(&FakeGateway::new(hello), CHAT, two).await;
    assert_eq!(
        (answer.status.as_u16(), answer.error_param().as_str()),
        (400, "response_format")
    );
}

#[tokio::test]
async fn a_grammar_that_turns_out_too_costly_is_told_whole_and_in_a_stream() {
    let script = |_: &_, _: &_| Ok(vec![started(0, 0), finished(0, Finish::GrammarTooCostly)]);
    for is_stream in [false, true] {
        let body = json!({"prompt": "fox", "guided_regex": "a", "stream": is_stream});
        let answer = post(&FakeGateway::new(script), "/v1/completions", body).await;
        assert_eq!(
            answer.status,
            if is_stream { 200 } else { 400 },
            "{}",
            answer.text
        );
        assert!(answer.text.contains("invalid_grammar"), "{}", answer.text);
        assert!(answer.text.contains("\"guided_regex\""), "{}", answer.text);
    }
}
