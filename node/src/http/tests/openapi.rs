//! The description of the interface is true, complete and the one that is checked in.

use super::fake::{FakeGateway, ask, hello, post};
use crate::http::openapi;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Set it to have the checked-in copy written anew.
const REWRITE: &str = "CLUSTER_REWRITE_SNAPSHOTS";

#[test]
fn the_checked_in_copy_is_the_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let page = openapi::page();
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/openapi.json is not what the types say; run this test with {REWRITE}=1 and review the difference"
    );
}

#[tokio::test]
async fn the_document_is_served() {
    let answer = ask(&FakeGateway::new(hello), "GET", "/openapi.json", String::new()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text, openapi::page());
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document: Value = serde_json::from_str(&openapi::page()).unwrap();
    let described: BTreeSet<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let source = include_str!("../mod.rs").replace("{*name}", "{name}");
    let routes: BTreeSet<&str> = source
        .split(".route(")
        .skip(1)
        .filter_map(|rest| rest.split('"').nth(1))
        .collect();
    assert_eq!(described, routes);
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document: Value = serde_json::from_str(&openapi::page()).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let place = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{reference}");
    }
}

/// What the document requires of an answer, the answer has.
#[tokio::test]
async fn answers_have_the_properties_that_the_document_promises() {
    let gateway = FakeGateway::new(hello);
    let document: Value = serde_json::from_str(&openapi::page()).unwrap();
    let chat = json!({"messages": [{"role": "user", "content": "fox"}]});
    let answers = [
        (
            "ChatCompletion",
            post(&gateway, "/v1/chat/completions", chat).await,
        ),
        (
            "Completion",
            post(&gateway, "/v1/completions", json!({"prompt": "fox"})).await,
        ),
        (
            "Tokens",
            post(&gateway, "/tokenize", json!({"prompt": "fox"})).await,
        ),
        (
            "Text",
            post(&gateway, "/detokenize", json!({"tokens": [40]})).await,
        ),
        ("Error", post(&gateway, "/v1/completions", json!({})).await),
        (
            "ModelList",
            ask(&gateway, "GET", "/v1/models", String::new()).await,
        ),
        (
            "TokenizerInfo",
            ask(&gateway, "GET", "/tokenizer_info", String::new()).await,
        ),
        ("Health", ask(&gateway, "GET", "/health", String::new()).await),
        ("Version", ask(&gateway, "GET", "/version", String::new()).await),
    ];
    for (name, answer) in answers {
        let schema = &document["components"]["schemas"][name];
        assert_has_required(schema, &answer.json(), &document, name);
    }
}

fn assert_has_required(schema: &Value, value: &Value, document: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(&reference[1..]).unwrap();
        return assert_has_required(target, value, document, place);
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        values
            .iter()
            .for_each(|value| assert_has_required(items, value, document, place));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        let found = value
            .get(name)
            .unwrap_or_else(|| panic!("{place}.{name} is missing in {value}"));
        assert_has_required(
            &schema["properties"][name],
            found,
            document,
            &format!("{place}.{name}"),
        );
    }
}
