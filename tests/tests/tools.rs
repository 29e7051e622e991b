//! Calls of tools by a small real model, which is held to them.

use serde_json::{Value, json};
use tests::{Client, Node};

fn tools() -> Value {
    let weather = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 7}, "minItems": 1, "maxItems": 3},
        },
        "required": ["city", "unit", "days"],
        "additionalProperties": false,
    });
    json!([
        {"type": "function", "function": {"name": "weather", "description": "Forecast for a city.", "parameters": weather}},
        {"type": "function", "function": {"name": "now"}},
    ])
}

fn asked(extra: Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "Weather in Paris on the next two days?"}],
        "tools": tools(), "max_tokens": 200, "parallel_tool_calls": false,
    });
    body.as_object_mut()
        .expect("an object")
        .extend(extra.as_object().expect("an object").clone());
    body
}

/// Name and arguments of the only call, which must be valid for the tool.
fn only_call(choice: &Value) -> (String, String) {
    assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
    let calls = choice["message"]["tool_calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 1, "{choice}");
    assert_eq!(choice["message"]["content"], Value::Null);
    let function = &calls[0]["function"];
    let text = function["arguments"].as_str().expect("arguments are text");
    let arguments: Value = serde_json::from_str(text).expect("arguments are JSON");
    let name = function["name"].as_str().expect("a name");
    match name {
        "weather" => {
            assert!(
                arguments["city"]
                    .as_str()
                    .is_some_and(|city| city.chars().count() <= 20),
                "{text}"
            );
            assert!(
                ["celsius", "fahrenheit"].contains(&arguments["unit"].as_str().unwrap_or_default()),
                "{text}"
            );
            let days = arguments["days"].as_array().expect("days");
            assert!((1..=3).contains(&days.len()), "{text}");
            assert!(
                days.iter()
                    .all(|day| day.as_u64().is_some_and(|day| (1..=7).contains(&day))),
                "{text}"
            );
            assert_eq!(arguments.as_object().map(serde_json::Map::len), Some(3), "{text}");
        }
        "now" => assert_eq!(arguments, json!({})),
        other => panic!("{other} is no tool"),
    }
    (name.to_owned(), text.to_owned())
}

fn streamed_call(client: &Client, extra: Value) -> (String, String) {
    let (mut name, mut arguments) = (String::new(), String::new());
    let mut finish = Value::Null;
    for chunk in client.stream("/v1/chat/completions", asked(extra)) {
        let choice = &chunk["choices"][0];
        if let Some(call) = choice["delta"]["tool_calls"].get(0) {
            assert_eq!(call["index"], 0);
            name.push_str(call["function"]["name"].as_str().unwrap_or_default());
            arguments.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
        }
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
    }
    assert_eq!(finish, "tool_calls");
    (name, arguments)
}

#[test]
fn a_demanded_call_is_valid_whole_and_streamed() {
    let node = Node::start();
    let client = node.client();
    for seed in 0..4 {
        let extra = json!({"tool_choice": "required", "seed": seed, "temperature": 1});
        let answer = client.chat(asked(extra.clone()));
        let whole = only_call(&answer["choices"][0]);
        assert_eq!(streamed_call(&client, extra), whole);
    }
    let named = json!({"type": "function", "function": {"name": "weather"}});
    let both = client.chat(asked(json!({"tool_choice": named, "n": 2, "temperature": 1})));
    for choice in both["choices"].as_array().expect("choices") {
        assert_eq!(only_call(choice).0, "weather");
    }
    let content = "It rains in Paris.";
    let answered = client.chat(json!({
        "messages": [
            {"role": "user", "content": "Weather in Paris?"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": content},
        ],
        "tools": tools(), "max_tokens": 8, "temperature": 0,
    }));
    assert_eq!(answered["choices"][0]["message"]["role"], "assistant");

    let parameters = json!({"type": "object", "propertyNames": {"maxLength": 3}});
    let bad = json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
    let refused = client.post(
        "/v1/chat/completions",
        &asked(json!({"model": tests::MODEL, "tools": bad, "tool_choice": "required"})),
    );
    assert_eq!(refused.status, 400, "{}", refused.text);
    let param = r#""param":"tools[0].function.parameters""#;
    assert!(refused.text.contains(param), "{}", refused.text);
    assert!(refused.text.contains("propertyNames"), "{}", refused.text);
}

/// The model knows no reasoning: biased to the tokens of the closing mark and hot, it stumbles upon it.
#[test]
fn a_form_is_of_the_content_behind_reasoning_that_the_prompt_opened() {
    let node = Node::start();
    let client = node.client();
    let told = json!({"prompt": "</think>", "add_special_tokens": false});
    let mark = client.post("/tokenize", &told).ok()["tokens"].take();
    let mark = mark.as_array().expect("tokens").iter();
    let bias: serde_json::Map<String, Value> = mark.map(|token| (token.to_string(), json!(100))).collect();
    let ended = (0..20).filter(|seed| {
        let answer = client.chat(json!({
            "messages": [{"role": "user", "content": "A number?"}, {"role": "assistant", "content": "<think>"}],
            "add_generation_prompt": false, "continue_final_message": true,
            "structured_outputs": {"regex": "[0-9]{3}"},
            "temperature": 2, "seed": seed, "max_tokens": 60, "logit_bias": bias,
        }));
        let choice = &answer["choices"][0];
        let content = choice["message"]["content"].as_str().unwrap_or_default();
        match choice["finish_reason"].as_str() {
            Some("stop") => {
                assert_eq!((content.len(), content.parse::<u32>().is_ok()), (3, true), "{answer}");
                true
            }
            _length => {
                assert!(content.len() <= 3, "{answer}");
                false
            }
        }
    });
    assert!(ended.count() > 0, "no answer came to its content");
}
