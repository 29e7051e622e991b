//! The shapes of answers. What is here always comes; a request may ask for more.

use serde_json::{Map, Value, json};

pub fn schemas() -> Map<String, Value> {
    let schemas = [
        ("ChatCompletion", chat_completion()),
        ("Completion", completion()),
        ("Usage", usage()),
        ("Model", model()),
        (
            "ModelList",
            object(json!({"object": {"const": "list"}, "data": list(reference("Model"))})),
        ),
        ("Tokens", tokens()),
        ("Text", object(json!({"prompt": {"type": "string"}}))),
        ("TokenizerInfo", tokenizer_info()),
        ("Health", object(json!({"status": {"const": "ok"}}))),
        ("Version", object(json!({"version": {"type": "string"}}))),
        ("Description", json!({"type": "object"})),
        ("Error", error()),
    ];
    schemas
        .into_iter()
        .map(|(name, schema)| (name.to_string(), schema))
        .collect()
}

fn chat_completion() -> Value {
    answer(
        "chat.completion",
        json!({
            "index": {"type": "integer"},
            "message": {
                "type": "object",
                "properties": {"role": {"const": "assistant"}, "content": {"type": ["string", "null"]}},
                "required": ["role", "content"],
            },
            "logprobs": {"type": ["object", "null"]},
            "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
        }),
    )
}

fn completion() -> Value {
    answer(
        "text_completion",
        json!({
            "index": {"type": "integer", "description": "prompt · n + k"},
            "text": {"type": "string"},
            "logprobs": {"type": ["object", "null"]},
            "finish_reason": {"enum": ["stop", "length"]},
        }),
    )
}

fn answer(kind: &str, choice: Value) -> Value {
    object(json!({
        "id": {"type": "string"},
        "object": {"const": kind},
        "created": {"type": "integer", "description": "Seconds since 1970."},
        "model": {"type": "string"},
        "choices": list(object(choice)),
        "usage": reference("Usage"),
    }))
}

fn usage() -> Value {
    object(json!({
        "prompt_tokens": {"type": "integer"},
        "completion_tokens": {"type": "integer"},
        "total_tokens": {"type": "integer"},
        "prompt_tokens_details": object(json!({"cached_tokens": {"type": "integer"}})),
    }))
}

fn model() -> Value {
    object(json!({
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "root": {"type": "string"},
        "parent": {"type": "null"},
        "max_model_len": {"type": "integer"},
    }))
}

fn tokens() -> Value {
    object(json!({
        "count": {"type": "integer"},
        "max_model_len": {"type": "integer"},
        "tokens": list(json!({"type": "integer"})),
        "token_strs": {"type": ["array", "null"], "items": {"type": "string"}},
    }))
}

fn tokenizer_info() -> Value {
    let text_or_null = json!({"type": ["string", "null"]});
    object(json!({
        "tokenizer_class": {"type": "string"},
        "bos_token": text_or_null,
        "eos_token": text_or_null,
        "unk_token": text_or_null,
        "pad_token": text_or_null,
        "vocab_size": {"type": "integer"},
        "model_max_length": {"type": "integer"},
        "chat_template": text_or_null,
    }))
}

fn error() -> Value {
    object(json!({"error": object(json!({
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"], "description": "The field of the request that is to blame."},
        "code": {"type": "string"},
    }))}))
}

/// An object that has all of these properties.
fn object(properties: Value) -> Value {
    let names: Vec<&String> = properties
        .as_object()
        .map(|map| map.keys().collect())
        .unwrap_or_default();
    json!({"type": "object", "properties": properties, "required": names})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
