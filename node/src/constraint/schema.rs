//! What of JSON schema is taken: every keyword is honoured or refused by name.
//!
//! llguidance itself refuses the keywords that it knows of and does not honour. Here stands the rest: what it would take
//! and not honour to the letter, and what it refuses though it asks for nothing.

use super::compiler::GrammarError;
use serde_json::{Map, Value, json};

/// Where llguidance reads options, which are ours to set.
const OPTIONS: &str = "x-guidance";

/// Any JSON object.
pub fn object() -> Value {
    json!({"type": "object", OPTIONS: options()})
}

/// `text` as a schema that llguidance honours or refuses.
pub fn read(text: &str) -> Result<Value, GrammarError> {
    let schema: Value = serde_json::from_str(text)
        .map_err(|error| GrammarError::new(format!("the schema is not valid JSON: {error}")))?;
    let mut schema = match schema {
        Value::Object(schema) => schema,
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err(GrammarError::new("the schema is `false`: nothing is valid")),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(GrammarError::new("the schema must be a JSON object"));
        }
    };
    if schema.contains_key(OPTIONS) {
        return Err(GrammarError::new(format!("`{OPTIONS}` is not supported")));
    }
    settle(&mut schema)?;
    schema.insert(OPTIONS.to_owned(), options());
    Ok(Value::Object(schema))
}

/// * A name that is not in `properties` could be spelled like one that is, were `\uXXXX` allowed in it.
/// * Models may get lost in white space, so there is an end to it.
fn options() -> Value {
    json!({
        "json_allowed_escapes": "nrbtf\\\"",
        "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}",
    })
}

/// Of one schema and all below it. Recursion is bounded by the depth of the JSON.
fn settle(schema: &mut Map<String, Value>) -> Result<(), GrammarError> {
    // Schemas written by programs have it.
    if schema.get("uniqueItems") == Some(&Value::Bool(false)) {
        schema.shift_remove("uniqueItems");
    }
    check_count_of_properties(schema)?;
    for (keyword, value) in schema {
        match keyword.as_str() {
            "properties" | "patternProperties" | "$defs" | "definitions" => settle_values(value)?,
            "allOf"
            | "anyOf"
            | "oneOf"
            | "prefixItems"
            | "items"
            | "additionalItems"
            | "additionalProperties" => settle_value(value)?,
            _no_schema => {}
        }
    }
    Ok(())
}

fn settle_values(schemas: &mut Value) -> Result<(), GrammarError> {
    let mut schemas = schemas.as_object_mut().into_iter().flatten();
    schemas.try_for_each(|(_, schema)| settle_value(schema))
}

/// A schema, or several in a list.
fn settle_value(value: &mut Value) -> Result<(), GrammarError> {
    match value {
        Value::Object(schema) if schema.contains_key("$id") => Err(GrammarError::new(
            "`$id` is supported at the root of a schema only",
        )),
        Value::Object(schema) => settle(schema),
        Value::Array(schemas) => schemas.iter_mut().try_for_each(settle_value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Two properties that nobody named may get the same name, and would then count once.
fn check_count_of_properties(schema: &Map<String, Value>) -> Result<(), GrammarError> {
    let least = schema.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    let required = schema
        .get("required")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    if least > required as u64 + 1 {
        return Err(GrammarError::new(
            "`minProperties` is supported up to one more than there are names in `required`",
        ));
    }
    Ok(())
}
