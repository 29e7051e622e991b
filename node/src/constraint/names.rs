//! `patternProperties` whose patterns match a few names only, as properties of these names.
//!
//! llguidance keeps count of properties by their names, and not of names that a pattern has given: once all are used up, it
//! would let a comma be written behind which nothing may come.

use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Hir, HirKind, Look};
use serde_json::{Map, Value, json};

/// Of one pattern. Those that match more are left as they are: an answer does not use all of them up.
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 256;

/// Patterns are in the syntax of the `regex` crate already.
pub fn settle(schema: &mut Map<String, Value>) {
    let Some(Value::Object(patterns)) = schema.shift_remove("patternProperties") else {
        return;
    };
    let mut others = Map::new();
    for (pattern, below) in patterns {
        match (names(&pattern), properties(schema)) {
            (Some(names), Some(properties)) => {
                for name in names {
                    demand(properties, name, below.clone());
                }
            }
            (_, _) => drop(others.insert(pattern, below)),
        }
    }
    if !others.is_empty() {
        schema.insert("patternProperties".to_owned(), Value::Object(others));
    }
}

/// `None`: they are no object, which is for the compiler to refuse.
fn properties(schema: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    properties.as_object_mut()
}

fn demand(properties: &mut Map<String, Value>, name: String, also: Value) {
    let settled = match properties.get_mut(&name).map(Value::take) {
        Some(known) => json!({"allOf": [known, also]}),
        None => also,
    };
    properties.insert(name, settled);
}

/// All that the pattern matches, which is anchored at both ends; `None`: that may be more, or is hard to see.
fn names(pattern: &str) -> Option<Vec<String>> {
    let parsed = regex_syntax::parse(pattern).ok()?;
    let HirKind::Concat(parts) = parsed.kind() else {
        return None;
    };
    let [first, inside @ .., last] = parts.as_slice() else {
        return None;
    };
    let is = |part: &Hir, look: Look| matches!(part.kind(), HirKind::Look(found) if *found == look);
    let inside = Hir::concat(inside.to_vec());
    let is_anchored = is(first, Look::Start) && is(last, Look::End);
    if !is_anchored || !inside.properties().look_set().is_empty() {
        return None;
    }
    let mut extractor = Extractor::new();
    extractor
        .limit_class(NAMES_MAX)
        .limit_repeat(NAMES_MAX)
        .limit_literal_len(NAME_BYTES_MAX)
        .limit_total(NAMES_MAX);
    let found = extractor.extract(&inside);
    if !found.is_exact() {
        return None;
    }
    let names = found.literals()?.iter();
    names
        .map(|name| String::from_utf8(name.as_bytes().to_vec()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_a_few_names_is_those_names() {
        for (pattern, expected) in [
            ("^kind$", Some(vec!["kind"])),
            ("^(?:cat|dog)s?$", Some(vec!["cats", "cat", "dogs", "dog"])),
            ("^([ab])$", Some(vec!["a", "b"])),
            ("^$", Some(vec![""])),
            ("^a|b$", None),
            ("kind", None),
            ("^kind", None),
            ("^x+$", None),
            ("^[a-z]{2}$", None),
        ] {
            let found = names(pattern);
            let found: Option<Vec<&str>> = found
                .as_ref()
                .map(|names| names.iter().map(String::as_str).collect());
            assert_eq!(found, expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_known_of_a_name_and_what_its_pattern_says_are_both_demanded() {
        let schema = json!({
            "properties": {"kind": {"enum": ["cat"]}},
            "patternProperties": {"^kind$": {"type": "string"}, "^other$": {}, "^x": {"type": "null"}},
        });
        let Value::Object(mut schema) = schema else {
            panic!("an object")
        };
        settle(&mut schema);
        let settled = json!({
            "properties": {"kind": {"allOf": [{"enum": ["cat"]}, {"type": "string"}]}, "other": {}},
            "patternProperties": {"^x": {"type": "null"}},
        });
        assert_eq!(Value::Object(schema), settled);
    }
}
