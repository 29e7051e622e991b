//! Keywords that llguidance knows of and does not honour: its refusal in our words, with the place in the schema.

use super::schema::{self, Holds, holds};
use proto::request::Grammar;
use serde_json::Value;

const THEIRS: &str = "Unimplemented keys: ";

/// `message` of the compiler, about this grammar.
pub fn in_our_words(message: String, grammar: &Grammar) -> String {
    let Some((before, list)) = message.split_once(THEIRS) else {
        return message;
    };
    let mut lists = serde_json::Deserializer::from_str(list).into_iter::<Vec<String>>();
    let Some(Ok(keywords)) = lists.next() else {
        return message;
    };
    let rest = &list[lists.byte_offset()..];
    let quoted: Vec<String> = keywords.iter().map(|keyword| format!("`{keyword}`")).collect();
    let verb = match keywords.len() {
        1 => "is",
        _several => "are",
    };
    let place = match (grammar, keywords.first()) {
        (Grammar::JsonSchema(text), Some(keyword)) => place(text, keyword),
        (_, None)
        | (Grammar::JsonObject | Grammar::Regex(_) | Grammar::Choice(_) | Grammar::Lark(_), Some(_)) => None,
    };
    let place = place.map_or_else(String::new, |place| format!(" (at `{place}`)"));
    format!("{before}{} {verb} not supported{place}{rest}", quoted.join(", "))
}

/// Where the keyword stands in the document as it came: of schemas that have it, the first whose keyword we have not made
/// something else of.
fn place(text: &str, keyword: &str) -> Option<String> {
    let original: Value = serde_json::from_str(text).ok()?;
    let settled = schema::read(text).ok()?;
    find(&original, &settled, keyword, "#")
}

/// Recursion is bounded by the depth of the JSON.
fn find(original: &Value, settled: &Value, keyword: &str, place: &str) -> Option<String> {
    let steps: Vec<(String, &Value)> = match original {
        Value::Object(members) if members.contains_key(keyword) && settled.get(keyword).is_some() => {
            return Some(place.to_owned());
        }
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| below(name, value))
            .collect(),
        Value::Array(schemas) => {
            let schemas = schemas.iter().enumerate();
            schemas
                .map(|(index, schema)| (format!("/{index}"), schema))
                .collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    steps.into_iter().find_map(|(step, schema)| {
        let settled = settled.pointer(&step)?;
        find(schema, settled, keyword, &format!("{place}{step}"))
    })
}

/// The schemas that a keyword of a schema holds, and the way to them.
fn below<'a>(name: &str, value: &'a Value) -> Vec<(String, &'a Value)> {
    match holds(name) {
        Holds::Named => {
            let schemas = value.as_object().into_iter().flatten();
            schemas
                .map(|(key, schema)| (format!("/{name}/{}", escaped(key)), schema))
                .collect()
        }
        Holds::Schemas => vec![(format!("/{name}"), value)],
        Holds::NoSchema => Vec::new(),
    }
}

/// As JSON pointers want it.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use crate::constraint::tests::{refusal, schema};
    use serde_json::json;

    #[test]
    fn what_the_compiler_refuses_is_told_in_our_words_with_its_place() {
        let unique = json!({"type": "array", "uniqueItems": true});
        let contains = json!({"contains": {"type": "string"}, "minContains": 1});
        let opposite = json!({"not": {"required": ["x"]}});
        for (words, refused) in [
            ("`uniqueItems` is not supported (at `#`)", unique.clone()),
            (
                "`uniqueItems` is not supported (at `#/properties/a~1b`)",
                json!({"properties": {"uniqueItems": {"uniqueItems": false}, "a/b": unique}}),
            ),
            (
                "`contains`, `minContains` are not supported (at `#/anyOf/1/items`)",
                json!({"anyOf": [{"type": "string"}, {"type": "array", "items": contains}]}),
            ),
            (
                "`not` is not supported (at `#/properties/b`)",
                json!({"properties": {"a": opposite, "b": {"not": {"pattern": "a"}}}}),
            ),
        ] {
            let message = refusal(&schema(refused));
            assert!(message.contains(words), "{words}: {message}");
        }
    }
}
