//! The shapes of answers. A test holds real ones against them.

mod generation;

use serde_json::{Map, Value, json};

pub fn schemas() -> Map<String, Value> {
    let schemas = [
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
    let schemas = schemas.into_iter().chain(generation::schemas());
    schemas.map(|(name, schema)| (name.to_string(), schema)).collect()
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
    object_with(properties, json!({}))
}

/// An object that has all of the first properties, and may have the second ones.
fn object_with(always: Value, at_times: Value) -> Value {
    let map = |value: Value| match value {
        Value::Object(map) => map,
        other => panic!("properties are an object, not {other}"),
    };
    let mut properties = map(always);
    let names: Vec<String> = properties.keys().cloned().collect();
    properties.extend(map(at_times));
    json!({"type": "object", "properties": properties, "required": names})
}

/// An object with any names, and such values.
fn map_of(values: Value) -> Value {
    json!({"type": "object", "additionalProperties": values})
}

fn any_of<const COUNT: usize>(schemas: [Value; COUNT]) -> Value {
    json!({"anyOf": schemas.to_vec()})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
