//! `patternProperties` whose patterns match a few names only, as properties of these names.
//!
//! llguidance keeps count of properties by their names, and not of names that a pattern has given: where all that a pattern
//! matches are properties too, and all are used up, it would let a comma be written behind which nothing may come.

use super::schema;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Hir, HirKind, Look};
use serde_json::{Map, Value, json};

/// Beyond so many they are left as they are, and soon refused.
const PATTERNS_MAX: usize = 32;
/// Of one pattern.
const NAMES_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 256;
/// What several names are to have each is written as often, so that it must be short: it may hold the like of itself.
const COPIED_BYTES_MAX: usize = 64;

/// Patterns are in the syntax of the `regex` crate already.
pub fn settle(schema: &mut Map<String, Value>) {
    let Some(Value::Object(patterns)) = schema.get_mut("patternProperties") else {
        return;
    };
    if patterns.len() > PATTERNS_MAX {
        return;
    }
    let patterns = std::mem::take(patterns);
    let mut named: Vec<(String, Option<Vec<String>>, Value)> = patterns
        .into_iter()
        .map(|(pattern, below)| (pattern.clone(), names(&pattern), below))
        .collect();
    // Of one name first: what they name is known to the others.
    named.sort_by_key(|(_, names, _)| names.as_ref().map_or(usize::MAX, Vec::len));
    let mut others = Map::new();
    for (pattern, names, below) in named {
        match names.filter(|names| is_for(names, &below, schema)) {
            Some(names) => names
                .into_iter()
                .for_each(|name| demand_of_property(schema, name, below.clone())),
            None => drop(others.insert(pattern, below)),
        }
    }
    match others.is_empty() {
        true => drop(schema.shift_remove("patternProperties")),
        false => schema["patternProperties"] = Value::Object(others),
    }
}

/// A name that is new is no trouble: a pattern can give it again and again.
fn is_for(names: &[String], below: &Value, schema: &Map<String, Value>) -> bool {
    let properties = match schema.get("properties") {
        None => None,
        Some(Value::Object(properties)) => Some(properties),
        // For the compiler to refuse.
        Some(_) => return false,
    };
    let required = schema.get("required").and_then(Value::as_array);
    let is_required =
        |name: &String| required.is_some_and(|required| required.iter().any(|other| other == name));
    let is_known = |name: &String| {
        is_required(name) || properties.is_some_and(|properties| properties.contains_key(name))
    };
    names.len() == 1 || (names.iter().all(is_known) && below.to_string().len() <= COPIED_BYTES_MAX)
}

fn demand_of_property(schema: &mut Map<String, Value>, name: String, also: Value) {
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    let known = properties.get_mut(&name).map(Value::take);
    properties[name] = match known {
        // Flat, however many patterns there are for it.
        Some(Value::Object(mut known)) if known.len() == 1 && known.contains_key(ALL_OF) => {
            schema::demand(&mut known, also);
            Value::Object(known)
        }
        Some(known) => json!({ALL_OF: [known, also]}),
        None => also,
    };
}

const ALL_OF: &str = "allOf";

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
            ("^[a-i]$", None),
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

    fn settled(schema: Value) -> Value {
        let Value::Object(mut schema) = schema else {
            panic!("an object")
        };
        settle(&mut schema);
        Value::Object(schema)
    }

    #[test]
    fn what_is_known_of_a_name_and_what_its_patterns_say_are_all_demanded() {
        let schema = json!({
            "properties": {"kind": {"enum": ["cat"]}},
            "patternProperties": {
                "^kind$": {"type": "string"}, "^(?:kind)$": {"maxLength": 3}, "^other$": {}, "^x": {"type": "null"}, "^[ab]$": {},
            },
        });
        let expected = json!({
            "properties": {"kind": {"allOf": [{"enum": ["cat"]}, {"type": "string"}, {"maxLength": 3}]}, "other": {}},
            "patternProperties": {"^x": {"type": "null"}, "^[ab]$": {}},
        });
        assert_eq!(settled(schema), expected);
    }

    #[test]
    fn what_would_grow_or_is_no_schema_stays_as_it_is() {
        let long = json!({"description": "x".repeat(COPIED_BYTES_MAX)});
        let names = json!({"a": {}, "b": {}});
        let many = (0..=PATTERNS_MAX).map(|number| (format!("^{number}$"), json!({})));
        for unchanged in [
            json!({"properties": names, "patternProperties": {"^[ab]$": long}}),
            json!({"patternProperties": Value::Object(many.collect())}),
            json!({"properties": 3, "patternProperties": {"^a$": {}}}),
            json!({"patternProperties": 3}),
            json!({"type": "object"}),
        ] {
            assert_eq!(settled(unchanged.clone()), unchanged);
        }
        let in_turn = json!({"required": ["b"], "patternProperties": {"^[ab]$": {}, "^a$": {}}});
        let expected = json!({"required": ["b"], "properties": {"a": {"allOf": [{}, {}]}, "b": {}}});
        assert_eq!(settled(in_turn), expected);
        let short = json!({"properties": names, "patternProperties": {"^[ab]$": {}}});
        let expected = json!({"properties": {"a": {"allOf": [{}, {}]}, "b": {"allOf": [{}, {}]}}});
        assert_eq!(settled(short), expected);
    }
}
