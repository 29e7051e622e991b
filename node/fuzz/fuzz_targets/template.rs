//! Any conversation in templates of several families, and a conversation in any template: a page or an error.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use node::text::{ChatTemplate, Conversation, NamedTokens};
use node_fuzz::conversation::{MESSAGE_BYTES, conversation};
use node_fuzz::{model, promises};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The frames of templates, and values that begin small: a list of one has room for four.
const MEMORY_CONSTANT: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else {
        return;
    };
    match TEMPLATES.get(choice as usize) {
        Some(template) => any_conversation(template, bytes),
        None => any_template(&String::from_utf8_lossy(bytes)),
    }
});

fn any_conversation(template: &ChatTemplate, bytes: &[u8]) {
    let Ok(conversation) = conversation(&mut Unstructured::new(bytes)) else {
        return;
    };
    let items = conversation.messages.len() + conversation.tools.len();
    let bytes = bytes.len() + items * MESSAGE_BYTES;
    let _ = promises::keep(bytes, MEMORY_CONSTANT, || template.render(&conversation));
}

/// Whoever serves a model has chosen its template, so what it does with a conversation is bounded by fuel and by the length
/// of its page alone, and what reading it takes by minijinja, which computes constants then: `'a' * 9999` is so long a string.
fn any_template(source: &str) {
    let read = promises::without_panic(|| ChatTemplate::new(source, &named()));
    if let Ok(template) = read {
        let _ = promises::without_panic(|| template.render(&CONVERSATION));
    }
}

static TEMPLATES: LazyLock<Vec<ChatTemplate>> = LazyLock::new(|| {
    let kept: Vec<Value> =
        serde_json::from_str(include_str!("../../src/text/testdata/templates.json")).expect("it is JSON");
    let kept = kept
        .iter()
        .map(|kept| kept["template"].as_str().expect("a string"));
    let all = kept.chain([model::TEMPLATE]);
    all.map(|source| ChatTemplate::new(source, &named()).expect("it is a template"))
        .collect()
});

static CONVERSATION: LazyLock<Conversation> = LazyLock::new(|| {
    Conversation {
    messages: serde_json::from_value(json!([
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Wie geht's? 漢\n", "name": "a"},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, null, {"b": "c"}]}}},
        ]},
        {"role": "tool", "content": "{\"x\": 1}", "tool_call_id": "1"},
    ]))
    .expect("they are messages"),
    tools: vec![json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})],
    add_generation_prompt: true,
    variables: json!({"thinking": true, "n": 3, "f": 0.5, "list": ["a", {"b": null}]}).as_object().expect("it is one").clone(),
}
});

fn named() -> NamedTokens {
    NamedTokens {
        bos: Some("<s>".to_owned()),
        eos: Some("</s>".to_owned()),
        ..NamedTokens::default()
    }
}
