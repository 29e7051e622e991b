//! What of JSON schema is taken: every keyword is honoured or refused by name.
//!
//! llguidance itself refuses the keywords that it knows of and does not honour. Here stands the rest: what it would take
//! and not honour to the letter, and what it refuses though it asks for nothing.

use super::compiler::GrammarError;
use super::exclusive::Search;
use super::formats::{self, Format};
use super::spacing::Spacing;
use super::{cost, literal, names, negation, number, pattern};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Any JSON object.
pub fn object() -> Value {
    let mut schema = json!({"type": "object"});
    Spacing::Readable.set(&mut schema);
    schema
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
    let spacing = Spacing::take(&mut schema)?;
    let mut schema = settled(Value::Object(schema))?;
    cost::check(&schema)?;
    // Wherever the walk above has not been: one bound beyond ends the process.
    number::check_as_it_is(&schema)?;
    spacing.set(&mut schema);
    Ok(schema)
}

/// The schema and all below it, and what references lead to elsewhere in the document.
fn settled(schema: Value) -> Result<Value, GrammarError> {
    let original = schema.clone();
    let search = Search::new(&original);
    let mut schema = schema;
    settle_value(&mut schema, &search)?;
    let mut targets = BTreeSet::new();
    collect_targets(&original, &mut targets);
    // A place within another comes after it.
    let mut places: Vec<&str> = vec![""];
    for target in targets {
        let ways = places.iter().filter_map(|place| target.strip_prefix(place));
        let ways: BTreeSet<Way> = ways.filter_map(way).collect();
        if ways.contains(&Way::ToSchema) {
            continue;
        }
        if ways.contains(&Way::ToNames) {
            let message = format!("`$ref` leads to a list of schemas, not to one: #{target}");
            return Err(GrammarError::new(message));
        }
        // Where there is nothing, the compiler says so.
        if let Some(target) = schema.pointer_mut(target) {
            settle_value(target, &search)?;
        }
        places.push(target);
    }
    Ok(schema)
}

/// Where `$ref` leads within this document, as JSON pointers.
fn collect_targets<'a>(value: &'a Value, targets: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            let reference = members.get("$ref").and_then(Value::as_str);
            targets.extend(reference.and_then(|reference| reference.strip_prefix('#')));
            members.values().for_each(|value| collect_targets(value, targets));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_targets(value, targets)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a keyword holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Schemas by name.
    Named,
    /// One, or a list.
    Schemas,
    NoSchema,
}

pub(super) fn holds(keyword: &str) -> Holds {
    match keyword {
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependencies"
        | "dependentSchemas" => Holds::Named,
        "allOf"
        | "anyOf"
        | "oneOf"
        | "prefixItems"
        | "items"
        | "additionalItems"
        | "additionalProperties"
        | "not"
        | "if"
        | "then"
        | "else" => Holds::Schemas,
        _no_schema => Holds::NoSchema,
    }
}

/// Where a pointer leads, seen from a schema.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// To one that is settled with it.
    ToSchema,
    /// To several of those, by name.
    ToNames,
    Elsewhere,
}

/// `None`: that is no pointer.
fn way(pointer: &str) -> Option<Way> {
    let mut steps = pointer.split('/').peekable();
    if steps.next() != Some("") {
        return None;
    }
    while let Some(keyword) = steps.next() {
        let is_index = |step: &&str| step.bytes().all(|byte| byte.is_ascii_digit());
        match holds(keyword) {
            Holds::Named if steps.next().is_none() => return Some(Way::ToNames),
            Holds::Named => {}
            Holds::Schemas => drop(steps.next_if(is_index)),
            Holds::NoSchema => return Some(Way::Elsewhere),
        }
    }
    Some(Way::ToSchema)
}

/// A schema, or several in a list. Recursion is bounded by the depth of the JSON.
fn settle_value(value: &mut Value, search: &Search<'_>) -> Result<(), GrammarError> {
    match value {
        Value::Object(schema) => settle(schema, search),
        Value::Array(schemas) => schemas
            .iter_mut()
            .try_for_each(|schema| settle_below(schema, search)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn settle_below(value: &mut Value, search: &Search<'_>) -> Result<(), GrammarError> {
    match value.get("$id") {
        Some(_) => Err(GrammarError::new(
            "`$id` is supported at the root of a schema only",
        )),
        None => settle_value(value, search),
    }
}

fn settle(schema: &mut Map<String, Value>, search: &Search<'_>) -> Result<(), GrammarError> {
    check_count_of_properties(schema)?;
    for (keyword, value) in schema.iter_mut() {
        match (holds(keyword), keyword.as_str()) {
            (Holds::Named, _) => {
                let mut schemas = value.as_object_mut().into_iter().flatten();
                schemas.try_for_each(|(_, schema)| settle_below(schema, search))?;
            }
            (Holds::Schemas, _) => settle_below(value, search)?,
            (Holds::NoSchema, "const" | "enum") => literal::check(keyword, value)?,
            (Holds::NoSchema, _) => {}
        }
    }
    // Schemas written by programs have it.
    if schema.get("uniqueItems") == Some(&Value::Bool(false)) {
        schema.shift_remove("uniqueItems");
    }
    settle_patterns(schema)?;
    names::settle(schema);
    settle_format(schema)?;
    number::settle(schema)?;
    settle_dependencies(schema);
    settle_negations(schema);
    settle_one_of(schema, search);
    bring_together(schema);
    Ok(())
}

fn settle_patterns(schema: &mut Map<String, Value>) -> Result<(), GrammarError> {
    if let Some(Value::String(pattern)) = schema.get_mut("pattern") {
        *pattern = pattern::translate(pattern)?;
    }
    let Some(Value::Object(patterns)) = schema.get_mut("patternProperties") else {
        return Ok(());
    };
    let mut translated = Map::new();
    for (pattern, below) in std::mem::take(patterns) {
        if translated.insert(pattern::translate(&pattern)?, below).is_some() {
            let message = format!("`patternProperties` has two patterns that say the same: {pattern}");
            return Err(GrammarError::new(message));
        }
    }
    *patterns = translated;
    Ok(())
}

fn settle_format(schema: &mut Map<String, Value>) -> Result<(), GrammarError> {
    let Some(Value::String(name)) = schema.get("format") else {
        return Ok(());
    };
    match formats::format(name)? {
        Format::Known(name) => schema["format"] = Value::from(name),
        Format::KnownUpTo(name, length_max) => {
            schema["format"] = Value::from(name);
            demand(schema, json!({"maxLength": length_max}));
        }
        Format::Note => drop(schema.shift_remove("format")),
        Format::Pattern(pattern) => {
            schema.shift_remove("format");
            match schema.contains_key("pattern") {
                true => demand(schema, json!({"pattern": pattern})),
                false => drop(schema.insert("pattern".to_owned(), Value::from(pattern))),
            }
        }
    }
    Ok(())
}

/// Adds what has to be true as well.
pub(super) fn demand(schema: &mut Map<String, Value>, also: Value) {
    match schema.get_mut("allOf") {
        Some(Value::Array(all)) => all.push(also),
        Some(_) | None => drop(schema.insert("allOf".to_owned(), Value::from(vec![also]))),
    }
}

/// A name is not there, or what depends on it is true.
fn settle_dependencies(schema: &mut Map<String, Value>) {
    for keyword in ["dependencies", "dependentRequired", "dependentSchemas"] {
        let Some(Value::Object(_)) = schema.get(keyword) else {
            continue;
        };
        let Some(Value::Object(dependencies)) = schema.shift_remove(keyword) else {
            continue;
        };
        for (name, dependency) in dependencies {
            let dependency = match dependency {
                Value::Array(names) => json!({"required": names}),
                other => other,
            };
            demand(
                schema,
                json!({"anyOf": [{"properties": {name: false}}, dependency]}),
            );
        }
    }
}

/// `not` and `if`, where there is a schema that says the opposite. Where there is none the compiler refuses them.
fn settle_negations(schema: &mut Map<String, Value>) {
    if let Some(opposite) = schema.get("not").and_then(negation::opposite) {
        schema.shift_remove("not");
        demand(schema, opposite);
    }
    if !schema.contains_key("if") {
        schema.shift_remove("then");
        schema.shift_remove("else");
    }
    if let Some(otherwise) = schema.get("if").and_then(negation::opposite) {
        let mut branch = |keyword| schema.shift_remove(keyword).unwrap_or(Value::Bool(true));
        let (condition, then, other) = (branch("if"), branch("then"), branch("else"));
        let ways = json!([{"allOf": [condition, then]}, {"allOf": [otherwise, other]}]);
        demand(schema, json!({"anyOf": ways}));
    }
}

/// Among schemas that exclude each other, one is as good as any.
fn settle_one_of(schema: &mut Map<String, Value>, search: &Search<'_>) {
    let Some(Value::Array(branches)) = schema.get("oneOf") else {
        return;
    };
    if schema.contains_key("anyOf") || !search.are_exclusive(branches) {
        return;
    }
    let renamed = std::mem::take(schema)
        .into_iter()
        .map(|(keyword, value)| match keyword.as_str() {
            "oneOf" => ("anyOf".to_owned(), value),
            _other => (keyword, value),
        });
    *schema = renamed.collect();
}

/// llguidance takes keywords group by group, and each of those below ends a group. But some mean nothing without others.
fn bring_together(schema: &mut Map<String, Value>) {
    let ends_group =
        |keyword: &str| matches!(keyword, "const" | "enum" | "allOf" | "anyOf" | "oneOf" | "$ref");
    let Some(first) = schema.keys().position(|keyword| !ends_group(keyword)) else {
        return;
    };
    let (before, after): (Vec<_>, Vec<_>) = std::mem::take(schema)
        .into_iter()
        .enumerate()
        .partition(|(index, (keyword, _))| *index < first || !ends_group(keyword));
    let members = before.into_iter().chain(after).map(|(_, member)| member);
    *schema = members.collect();
}

/// Two properties that nobody named may get the same name, and would then count once.
fn check_count_of_properties(schema: &Map<String, Value>) -> Result<(), GrammarError> {
    let least = schema.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    let required = schema.get("required").and_then(Value::as_array);
    let required: BTreeSet<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
    if least > required.len() as u64 + 1 {
        return Err(GrammarError::new(
            "`minProperties` is supported up to one more than there are names in `required`",
        ));
    }
    Ok(())
}
