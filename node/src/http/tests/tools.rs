//! Tools and reasoning: what reaches the model, what reaches the client.

use super::fake::{FakeGateway, Script, finished, hello, post, said, started};
use crate::gateway::{Generate, StreamEvent};
use crate::text::tests::byte_model;
use crate::text::{SpecialTokens, TextModel, decode};
use axum::http::StatusCode;
use proto::request::{Finish, Grammar, Refusal};
use serde_json::{Value, json};
use std::sync::Arc;

/// In the manner of Hermes; shows what it was given.
const TEMPLATE: &str = "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}{% if message.reasoning_content %}[thought {{ message.reasoning_content }}]{% endif %}{% for call in message.tool_calls %}<tool_call>{{ call.id }} {{ call.function.name }} {{ call.function.arguments.city }}{% endfor %}{{ message.tool_call_id }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if thinking %}<think>\n{% endif %}{% endif %}{% if false %}</think>{% endif %}";

const TWO_CALLS: &str = "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";

pub fn gateway(script: Script) -> Arc<FakeGateway> {
    FakeGateway::with_model(script, byte_model(TEMPLATE, &[]), 4000)
}

fn says(text: &str, request: &Generate, model: &TextModel) -> Result<Vec<StreamEvent>, Refusal> {
    let one = |choice| {
        let mut events = vec![started(choice, 0)];
        events.extend(said(request, model, choice, 0, text));
        events.push(finished(choice, Finish::Stop));
        events
    };
    Ok((0..request.streams.len() as u32).flat_map(one).collect())
}

pub fn two_calls(request: &Generate, model: &TextModel) -> Result<Vec<StreamEvent>, Refusal> {
    says(TWO_CALLS, request, model)
}

pub fn thinks_and_calls(request: &Generate, model: &TextModel) -> Result<Vec<StreamEvent>, Refusal> {
    let call = "<tool_call>{\"name\": \"time\", \"arguments\": {}}</tool_call>";
    says(&format!("Hm.\n</think>\n\n{call}"), request, model)
}

fn tools() -> Value {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!([
        {"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": city}},
        {"type": "function", "function": {"name": "time"}},
    ])
}

pub fn chat(extra: Value) -> Value {
    let mut body = json!({
        "tools": tools(), "temperature": 0, "messages": [{"role": "user", "content": "fox"}],
    });
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

pub async fn ask(gateway: &Arc<FakeGateway>, extra: Value) -> Value {
    let answer = post(gateway, "/v1/chat/completions", chat(extra)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

pub async fn stream(gateway: &Arc<FakeGateway>, extra: Value) -> Vec<Value> {
    let mut body = chat(extra);
    body["stream"] = json!(true);
    post(gateway, "/v1/chat/completions", body).await.chunks()
}

fn prompt(gateway: &Arc<FakeGateway>) -> String {
    let seen = gateway.seen();
    decode(
        gateway.text().vocabulary(),
        &seen.streams[0].prompt,
        SpecialTokens::Show,
    )
}

fn lark(gateway: &Arc<FakeGateway>) -> Option<String> {
    match gateway.seen().streams[0].sampling.grammar.clone() {
        Some(Grammar::Lark(text)) => Some(text),
        None => None,
        Some(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_has_content_and_calls() {
    let gateway = gateway(two_calls);
    let choice = ask(&gateway, json!({})).await["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls");
    let message = &choice["message"];
    assert_eq!(message["content"], "Let me look.\n");
    let calls = message["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert_eq!(
        calls[0]["function"],
        json!({"name": "weather", "arguments": "{\"city\": \"Köln\"}"})
    );
    assert_eq!(calls[1]["function"], json!({"name": "time", "arguments": "{}"}));
    assert!(calls.iter().all(|call| call["type"] == "function"));
    let ids: Vec<&str> = calls.iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert!(ids[0].starts_with("call_") && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn without_content_it_is_null_and_without_calls_nothing_is_said_of_them() {
    let gateway = gateway(|request, model| {
        says(
            "<tool_call>{\"name\": \"time\", \"arguments\": {}}</tool_call>",
            request,
            model,
        )
    });
    let message = ask(&gateway, json!({})).await["choices"][0]["message"].clone();
    assert_eq!(message.get("content"), Some(&Value::Null));
    assert_eq!(message.get("reasoning"), None);
    let none = ask(&gateway, json!({"tools": null})).await["choices"][0].clone();
    assert_eq!(none["message"].get("tool_calls"), None);
    assert_eq!(none["finish_reason"], "stop");
    assert!(
        none["message"]["content"]
            .as_str()
            .unwrap()
            .starts_with("<tool_call>")
    );
}

#[tokio::test]
async fn a_stream_names_each_call_once_and_then_sends_its_arguments() {
    let gateway = gateway(two_calls);
    let chunks = stream(&gateway, json!({"n": 2})).await;
    let whole = ask(&gateway, json!({})).await["choices"][0]["message"].clone();
    for choice in 0..2 {
        let of_choice: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|part| part["index"] == choice)
            .collect();
        assert_eq!(of_choice.last().unwrap()["finish_reason"], "tool_calls");
        let content: String = of_choice
            .iter()
            .filter_map(|part| part["delta"]["content"].as_str())
            .collect();
        assert_eq!(content, whole["content"].as_str().unwrap());
        let mut arguments = [String::new(), String::new()];
        let mut begun = Vec::new();
        for part in &of_choice {
            let Some(calls) = part["delta"].get("tool_calls") else {
                continue;
            };
            assert_eq!(calls.as_array().unwrap().len(), 1);
            let index = calls[0]["index"].as_u64().unwrap() as usize;
            if calls[0].get("id").is_some() {
                assert_eq!(
                    (&calls[0]["type"], &calls[0]["function"]["arguments"]),
                    (&json!("function"), &json!(""))
                );
                begun.push(calls[0]["function"]["name"].as_str().unwrap());
            } else {
                assert_eq!(calls[0].as_object().unwrap().len(), 2, "{calls}");
            }
            arguments[index].push_str(calls[0]["function"]["arguments"].as_str().unwrap());
        }
        assert_eq!(begun, ["weather", "time"]);
        assert_eq!(arguments, ["{\"city\": \"Köln\"}", "{}"]);
    }
}

#[tokio::test]
async fn every_token_has_its_logprobs_whatever_it_becomes() {
    let gateway = gateway(two_calls);
    let asked = json!({"logprobs": true, "top_logprobs": 1});
    let whole = ask(&gateway, asked.clone()).await;
    let count = |part: &Value| part["logprobs"]["content"].as_array().map_or(0, Vec::len);
    let tokens = whole["usage"]["completion_tokens"].as_u64().unwrap() as usize;
    assert_eq!(count(&whole["choices"][0]), tokens);
    let chunks = stream(&gateway, asked).await;
    let in_chunks: usize = chunks.iter().map(|chunk| count(&chunk["choices"][0])).sum();
    assert_eq!(in_chunks, tokens);
}

#[tokio::test]
async fn one_call_ends_the_answer_where_no_more_are_wanted() {
    let gateway = gateway(two_calls);
    let choice = ask(&gateway, json!({"parallel_tool_calls": false})).await["choices"][0].clone();
    assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(gateway.signals().ended, [0]);
}

#[tokio::test]
async fn stop_strings_are_looked_for_in_the_content_alone() {
    let gateway = gateway(two_calls);
    let in_calls = ask(&gateway, json!({"stop": ["city", "time"]})).await["choices"][0].clone();
    assert_eq!(in_calls["message"]["tool_calls"].as_array().unwrap().len(), 2);
    let in_content = ask(&gateway, json!({"stop": " look"})).await["choices"][0].clone();
    assert_eq!(in_content["message"]["content"], "Let me");
    assert_eq!(in_content["finish_reason"], "stop");
}

#[tokio::test]
async fn a_call_cut_off_by_the_length_says_so() {
    let gateway = gateway(|request, model| {
        let text = "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Kö";
        let mut events = vec![started(0, 0)];
        events.extend(said(request, model, 0, 0, text));
        events.push(finished(0, Finish::Length));
        Ok(events)
    });
    let choice = ask(&gateway, json!({})).await["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(
        choice["message"]["tool_calls"][0]["function"]["arguments"],
        "{\"city\": \"Kö"
    );
}

/// As much of an answer as the request takes.
fn says_what_fits(text: &str, request: &Generate, model: &TextModel) -> Result<Vec<StreamEvent>, Refusal> {
    let tokens = request.streams[0].max_new_tokens as usize;
    let mut events = vec![started(0, 0)];
    events.extend(said(request, model, 0, 0, text).into_iter().take(tokens));
    events.push(finished(0, Finish::Length));
    Ok(events)
}

#[tokio::test]
async fn of_a_call_cut_off_by_the_length_no_mark_is_content() {
    let gateway = gateway(|request, model| says_what_fits(&TWO_CALLS[13..], request, model));
    let whole = TWO_CALLS[13..].len();
    for choice in ["auto", "required"] {
        for tokens in (1..whole).step_by(3) {
            let extra = json!({"tool_choice": choice, "max_tokens": tokens});
            let message = ask(&gateway, extra.clone()).await["choices"][0]["message"].clone();
            // With nothing beside it, null would be no message that can be sent back.
            let content = match message.get("tool_calls") {
                Some(_) => Value::Null,
                None => json!(""),
            };
            assert_eq!(message["content"], content, "{tokens}: {message}");
            let chunks = stream(&gateway, extra).await;
            let mut told = chunks
                .iter()
                .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
            assert!(told.all(str::is_empty), "{tokens}: {chunks:?}");
        }
    }
}

#[tokio::test]
async fn a_bracket_at_the_end_of_a_text_is_content_unless_the_text_was_cut_off() {
    let whole = gateway(|request, model| says("1 <", request, model));
    let cut = gateway(|request, model| says_what_fits("1 <", request, model));
    for (gateway, content) in [(whole, "1 <"), (cut, "1 ")] {
        let choice = ask(&gateway, json!({})).await["choices"][0].clone();
        assert_eq!(choice["message"]["content"], content);
    }
}

#[tokio::test]
async fn a_mark_that_is_a_special_token_is_read_and_others_stay_hidden() {
    let script: Script = |request, model| {
        says(
            "<|im_start|><tool_call>{\"name\": \"time\", \"arguments\": {}}</tool_call>",
            request,
            model,
        )
    };
    let gateway = FakeGateway::with_model(script, byte_model(TEMPLATE, &["<tool_call>"]), 4000);
    let message = ask(&gateway, json!({})).await["choices"][0]["message"].clone();
    assert_eq!(message["tool_calls"][0]["function"]["name"], "time");
    assert_eq!(message["content"], Value::Null);
    let forced = ask(&gateway, json!({"tool_choice": "required"})).await;
    assert_eq!(forced["choices"][0]["finish_reason"], "tool_calls");
    let id = gateway.text().mark_token("<tool_call>").unwrap();
    assert!(lark(&gateway).unwrap().contains(&format!("<[{id}]>")));
}

#[tokio::test]
async fn how_long_to_think_is_told_to_the_template_unless_its_variables_say_so() {
    let template = "{{ messages[0].content }} {{ reasoning_effort }}";
    for (fields, told) in [
        (json!({"reasoning_effort": "low"}), "hm low"),
        (
            json!({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}}),
            "hm high",
        ),
    ] {
        let gateway = FakeGateway::with_model(hello, byte_model(template, &[]), 4000);
        let mut body = fields;
        body["messages"] = json!([{"role": "user", "content": "hm"}]);
        assert_eq!(post(&gateway, "/v1/chat/completions", body).await.status, 200);
        let prompt = gateway.seen().streams.remove(0).prompt;
        let text = decode(gateway.text().vocabulary(), &prompt, SpecialTokens::Show);
        assert_eq!(text, told);
    }
}

#[tokio::test]
async fn a_form_is_of_the_content_behind_reasoning_that_the_prompt_opened() {
    let gateway = gateway(|request, model| says("Hm.\n</think>\n\n{\"a\": 1}", request, model));
    let format = json!({"type": "json_object"});
    for tools in [json!({"tools": null}), json!({"tool_choice": "none"})] {
        let mut extra = json!({"response_format": format, "chat_template_kwargs": {"thinking": true}});
        extra
            .as_object_mut()
            .unwrap()
            .extend(tools.as_object().unwrap().clone());
        let message = ask(&gateway, extra.clone()).await["choices"][0]["message"].clone();
        assert_eq!(message["reasoning"], "Hm.");
        assert_eq!(message["content"], "{\"a\": 1}");
        let form = lark(&gateway).expect("it has a form");
        assert!(form.starts_with("start: reasoned \"\\n\\n\" content"), "{form}");
        // Where the model may reason or not, the answer is of the form from its first token.
        extra["chat_template_kwargs"] = json!({"thinking": false});
        ask(&gateway, extra).await;
        let sampling = &gateway.seen().streams[0].sampling;
        assert_eq!(sampling.grammar, Some(Grammar::JsonObject));
    }
}

#[tokio::test]
async fn the_template_gets_tools_and_earlier_calls_with_parsed_arguments() {
    let gateway = gateway(two_calls);
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Ulm\"}"}});
    let messages = json!([
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": null, "reasoning_content": "a call", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "yes"}]},
    ]);
    ask(&gateway, json!({"messages": messages})).await;
    let prompt = prompt(&gateway);
    let weather = "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Now.\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}}}";
    assert!(prompt.contains(weather), "{prompt}");
    assert!(
        prompt.contains("[thought a call]<tool_call>call_1 weather Ulm"),
        "{prompt}"
    );
    assert!(prompt.contains("tool\nyescall_1"), "{prompt}");
}

#[tokio::test]
async fn with_none_chosen_the_model_does_not_hear_of_the_tools() {
    let gateway = gateway(two_calls);
    let choice = ask(&gateway, json!({"tool_choice": "none"})).await["choices"][0].clone();
    assert_eq!(choice["message"]["content"], TWO_CALLS);
    assert!(!prompt(&gateway).contains("<tools>"));
}

#[tokio::test]
async fn an_answer_is_held_to_the_calls_that_are_demanded() {
    let gateway = gateway(two_calls);
    ask(&gateway, json!({})).await;
    assert_eq!(lark(&gateway), None);
    ask(&gateway, json!({"tool_choice": "required"})).await;
    let any = lark(&gateway).unwrap();
    assert!(
        any.contains("weather") && any.contains("time") && any.contains("\"city\""),
        "{any}"
    );
    let named = json!({"type": "function", "function": {"name": "time"}});
    let answer = ask(&gateway, json!({"tool_choice": named})).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    let named = lark(&gateway).unwrap();
    assert!(!named.contains("weather") && named.contains("time"), "{named}");
}

#[tokio::test]
async fn strict_tools_are_held_to_their_schemas_and_others_are_not() {
    let gateway = gateway(two_calls);
    let mut tools = tools();
    tools[1]["function"]["strict"] = json!(true);
    ask(&gateway, json!({"tools": tools})).await;
    let grammar = lark(&gateway).unwrap();
    assert!(
        grammar.contains("free:") && grammar.contains("additionalProperties"),
        "{grammar}"
    );
    assert!(!grammar.contains("\"city\""), "{grammar}");
    ask(&gateway, json!({"tools": tools})).await;
    assert!(!prompt(&gateway).contains("strict"));
}

/// The tools of `tools()` and these.
fn with_tools(more: &[(&str, Value)]) -> Value {
    let mut tools = tools();
    let of = |(name, parameters): &(&str, Value)| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    tools.as_array_mut().unwrap().extend(more.iter().map(of));
    json!({"tools": tools, "tool_choice": "required"})
}

#[tokio::test]
async fn schemas_of_tools_are_read_as_other_schemas_are() {
    let gateway = gateway(two_calls);
    let digits = json!({"type": "object", "properties": {"a": {"pattern": "^\\d$", "uniqueItems": false}}});
    ask(&gateway, with_tools(&[("f", digits)])).await;
    let grammar = lark(&gateway).unwrap();
    assert!(
        grammar.contains("^[0-9&&") && !grammar.contains("uniqueItems"),
        "{grammar}"
    );
    let format = json!({"response_format": {"type": "json_object"}});
    ask(&gateway, format).await;
    let grammar = lark(&gateway).unwrap();
    assert!(
        grammar.contains("content: %json") && grammar.contains("whitespace_pattern"),
        "{grammar}"
    );
}

#[tokio::test]
async fn a_tool_whose_schema_cannot_be_kept_is_named_and_what_is_made_of_it_is_not() {
    let gateway = gateway(two_calls);
    let unique = json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
    let long = json!({"type": "object", "description": "x".repeat(140 << 10)});
    let kept = json!({"type": "object"});
    for (more, param, word) in [
        (
            [("f", kept.clone()), ("g", unique)],
            "tools[3].function.parameters",
            "uniqueItems",
        ),
        (
            [
                ("f", json!({"x-guidance": {"lenient": true}})),
                ("g", kept.clone()),
            ],
            "tools[2].function.parameters",
            "x-guidance",
        ),
        ([("f", long.clone()), ("g", long)], "tools", "together"),
    ] {
        let mut tools = with_tools(&more);
        tools["truncate_prompt_tokens"] = json!(100);
        let answer = post(&gateway, "/v1/chat/completions", chat(tools)).await;
        assert_eq!(
            (answer.status, answer.error_param().as_str()),
            (StatusCode::BAD_REQUEST, param)
        );
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(word) && message.contains(param), "{message}");
        assert!(
            !message.contains("call_") && !message.contains("whitespace"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn tokenize_counts_the_tools_of_a_chat() {
    let gateway = gateway(two_calls);
    let tokens = async |body: Value| {
        post(&gateway, "/tokenize", body).await.json()["count"]
            .as_u64()
            .unwrap()
    };
    let messages = json!([{"role": "user", "content": "fox"}]);
    let without = tokens(json!({"messages": messages})).await;
    assert!(tokens(json!({"messages": messages, "tools": tools()})).await > without + 20);
}

#[tokio::test]
async fn a_template_that_knows_no_tools_has_them_described() {
    let plain = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}";
    let gateway = FakeGateway::with_model(two_calls, byte_model(plain, &[]), 4000);
    let choice = ask(&gateway, json!({})).await["choices"][0].clone();
    assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 2);
    let prompt = prompt(&gateway);
    assert!(
        prompt.starts_with("<|im_start|>system\n") && prompt.contains("\"name\": \"weather\""),
        "{prompt}"
    );
}

#[tokio::test]
async fn a_template_with_calls_of_an_unknown_form_refuses_tools() {
    let unknown = "{% if tools %}<function=f>{% endif %}{{ messages[0].content }}";
    let gateway = FakeGateway::with_model(two_calls, byte_model(unknown, &[]), 4000);
    let answer = post(&gateway, "/v1/chat/completions", chat(json!({}))).await;
    assert_eq!(
        (answer.status, answer.error_param().as_str()),
        (StatusCode::BAD_REQUEST, "tools")
    );
    let none = post(
        &gateway,
        "/v1/chat/completions",
        chat(json!({"tool_choice": "none"})),
    )
    .await;
    assert_eq!(none.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_wrong_with_tools_is_refused_by_name() {
    let gateway = gateway(two_calls);
    let function = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    let named = |name: &str| json!({"tool_choice": {"type": "function", "function": {"name": name}}});
    let messages = |message: Value| json!({"messages": [message]});
    for (extra, param) in [
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
        (function(json!({})), "tools[0].function.name"),
        (function(json!({"name": "a b"})), "tools[0].function.name"),
        (function(json!({"name": ""})), "tools[0].function.name"),
        (
            function(json!({"name": "x".repeat(65)})),
            "tools[0].function.name",
        ),
        (
            function(json!({"name": "f", "parameters": []})),
            "tools[0].function.parameters",
        ),
        (
            function(json!({"name": "f", "parameters": {"type": "string"}})),
            "tools[0].function.parameters",
        ),
        (
            json!({"tools": [tools()[0], tools()[0]]}),
            "tools[1].function.name",
        ),
        (json!({"tools": [], "tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (
            json!({"tool_choice": {"type": "allowed_tools"}}),
            "tool_choice.type",
        ),
        (named("snow"), "tool_choice"),
        (json!({"parallel_tool_calls": 1}), "parallel_tool_calls"),
        (json!({"functions": [{"name": "f"}]}), "functions"),
        (json!({"function_call": {"name": "f"}}), "function_call"),
        (
            messages(json!({"role": "function", "name": "f", "content": "1"})),
            "messages[0].role",
        ),
        (
            messages(json!({"role": "user", "content": "a", "tool_calls": [{"function": {"name": "f"}}]})),
            "messages[0].tool_calls",
        ),
        (
            messages(json!({"role": "tool", "content": null})),
            "messages[0].content",
        ),
        (
            messages(
                json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 3}}]}),
            ),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ] {
        let answer = post(&gateway, "/v1/chat/completions", chat(extra.clone())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{extra}");
        assert_eq!(answer.error_param(), param, "{extra}: {}", answer.text);
    }
}
