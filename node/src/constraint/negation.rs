//! The opposite of a schema, where a schema can say it.

use serde_json::{Map, Value, json};

const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

/// Valid is what is not valid under `schema`. `None`: that cannot be said, or hardly.
pub fn opposite(schema: &Value) -> Option<Value> {
    let keywords = match schema {
        Value::Bool(always) => return Some(Value::Bool(!always)),
        Value::Object(keywords) => keywords,
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => return None,
    };
    // One of them has to be broken.
    let ways = keywords
        .iter()
        .filter(|(keyword, _)| !is_note(keyword))
        .map(|(keyword, value)| opposite_of(keyword, value))
        .collect::<Option<Vec<Value>>>()?;
    Some(any(ways))
}

fn opposite_of(keyword: &str, value: &Value) -> Option<Value> {
    match keyword {
        "required" => {
            let names = value.as_array()?.iter().map(Value::as_str);
            let names = names.collect::<Option<Vec<&str>>>()?;
            Some(any(names.into_iter().map(absent).collect()))
        }
        "type" => {
            let names = match value {
                Value::Array(names) => names.iter().map(Value::as_str).collect::<Option<Vec<&str>>>()?,
                other => vec![other.as_str()?],
            };
            // There is no word for a number with a fraction.
            let is_sayable = !names.contains(&"integer") || names.contains(&"number");
            let others = TYPES.iter().filter(|name| !names.contains(name));
            is_sayable.then(|| json!({"type": others.collect::<Vec<_>>()}))
        }
        "anyOf" => {
            let all = value.as_array()?.iter().map(opposite);
            Some(json!({"allOf": all.collect::<Option<Vec<Value>>>()?}))
        }
        "allOf" => {
            let ways = value.as_array()?.iter().map(opposite);
            Some(any(ways.collect::<Option<Vec<Value>>>()?))
        }
        _other => None,
    }
}

fn is_note(keyword: &str) -> bool {
    matches!(
        keyword,
        "title" | "description" | "$comment" | "default" | "examples"
    )
}

/// An object without this member.
fn absent(name: &str) -> Value {
    let members = Map::from_iter([(name.to_owned(), Value::Bool(false))]);
    json!({"type": "object", "properties": members})
}

fn any(mut ways: Vec<Value>) -> Value {
    match ways.len() {
        0 => Value::Bool(false),
        1 => ways.swap_remove(0),
        _several => json!({"anyOf": ways}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_absent_somewhere_and_what_is_hard_to_say_stays_unsaid() {
        let absent = |name: &str| json!({"type": "object", "properties": {name: false}});
        for (schema, expected) in [
            (json!({}), Some(json!(false))),
            (json!(false), Some(json!(true))),
            (json!({"required": ["a"]}), Some(absent("a"))),
            (
                json!({"required": ["a", "b"]}),
                Some(json!({"anyOf": [absent("a"), absent("b")]})),
            ),
            (
                json!({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                Some(json!({"allOf": [absent("a"), absent("b")]})),
            ),
            (
                json!({"type": ["string", "number"]}),
                Some(json!({"type": ["null", "boolean", "array", "object"]})),
            ),
            (
                json!({"type": "object", "required": ["a"]}),
                Some(
                    json!({"anyOf": [{"type": ["null", "boolean", "number", "string", "array"]}, absent("a")]}),
                ),
            ),
            (json!({"type": "integer"}), None),
            (json!({"pattern": "a"}), None),
            (json!({"required": ["a"], "const": 1}), None),
        ] {
            assert_eq!(opposite(&schema), expected, "{schema}");
        }
    }
}
