//! Which schemas nothing is valid under both of: among such, `oneOf` is `anyOf`, which a grammar can say.

use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Of references and schemas within schemas.
const DEPTH_MAX: u32 = 12;

/// Looks for proofs in one document.
pub struct Search<'a> {
    root: &'a Value,
    /// Pairs of schemas that may still be compared: their number can grow without measure.
    fuel: Cell<u32>,
}

const FUEL: u32 = 20_000;

impl<'a> Search<'a> {
    /// References lead into `root`.
    pub fn new(root: &'a Value) -> Search<'a> {
        Search {
            root,
            fuel: Cell::new(FUEL),
        }
    }

    /// Is no value valid under two of `branches`? `false` may also mean that it is hard to see.
    pub fn are_exclusive(&self, branches: &[Value]) -> bool {
        (1..=branches.len()).all(|index| {
            let (before, after) = branches.split_at(index);
            after
                .iter()
                .all(|other| self.excludes(&before[index - 1], other, DEPTH_MAX))
        })
    }

    fn excludes(&self, first: &Value, second: &Value, depth: u32) -> bool {
        let (Some(depth), Some(fuel)) = (depth.checked_sub(1), self.fuel.get().checked_sub(1)) else {
            return false;
        };
        self.fuel.set(fuel);
        let (mut first_facts, mut second_facts) = (Facts::default(), Facts::default());
        first_facts.add(first, self.root, depth);
        second_facts.add(second, self.root, depth);
        first_facts.exclude(&second_facts)
            || self.are_objects_exclusive(&first_facts, &second_facts, depth)
            || self.choice_excludes(&first_facts, second, depth)
            || self.choice_excludes(&second_facts, first, depth)
    }

    /// Is there a choice in `facts` all ways of which exclude `other`?
    fn choice_excludes(&self, facts: &Facts<'_>, other: &Value, depth: u32) -> bool {
        let mut choices = facts.choices.iter();
        choices.any(|choice| choice.iter().all(|way| self.excludes(way, other, depth)))
    }

    fn are_objects_exclusive(&self, first: &Facts<'_>, second: &Facts<'_>, depth: u32) -> bool {
        let is_object = first.shared_types(second) == Some(BTreeSet::from(["object"]));
        is_object
            && (self.object_excludes(first, second, depth) || self.object_excludes(second, first, depth))
    }

    /// Something has to be there that is otherwise in the other, or may not be in it.
    fn object_excludes(&self, first: &Facts<'_>, second: &Facts<'_>, depth: u32) -> bool {
        first.required.iter().any(|name| {
            let mine = first.properties.get(name).into_iter().flatten();
            let theirs = second.properties.get(name).map_or(&[][..], Vec::as_slice);
            let is_forbidden = second
                .closed
                .iter()
                .any(|names| !names.is_some_and(|names| names.contains_key(*name)));
            is_forbidden
                || theirs.contains(&&Value::Bool(false))
                || mine
                    .into_iter()
                    .any(|first| theirs.iter().any(|second| self.excludes(first, second, depth)))
        })
    }
}

/// What has to be true of a value. Leaving something out is safe: less is excluded.
#[derive(Default)]
struct Facts<'a> {
    is_never: bool,
    /// Without them, any.
    types: Option<BTreeSet<&'static str>>,
    values: Option<&'a Vec<Value>>,
    value: Option<&'a Value>,
    required: BTreeSet<&'a str>,
    properties: BTreeMap<&'a str, Vec<&'a Value>>,
    /// Objects that allow no names but these.
    closed: Vec<Option<&'a Map<String, Value>>>,
    choices: Vec<&'a Vec<Value>>,
}

impl<'a> Facts<'a> {
    fn add(&mut self, schema: &'a Value, root: &'a Value, depth: u32) {
        let Some(depth) = depth.checked_sub(1) else { return };
        let Value::Object(schema) = schema else {
            self.is_never |= schema == &Value::Bool(false);
            return;
        };
        if let Some(target) = schema.get("$ref").and_then(|reference| target(reference, root)) {
            self.add(target, root, depth);
        }
        for schema in list(schema.get("allOf")) {
            self.add(schema, root, depth);
        }
        for keyword in ["anyOf", "oneOf"] {
            self.choices.extend(schema.get(keyword).and_then(Value::as_array));
        }
        self.add_values(schema);
        self.required
            .extend(list(schema.get("required")).filter_map(Value::as_str));
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, below) in properties.into_iter().flatten() {
            self.properties.entry(name).or_default().push(below);
        }
        let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        if is_closed && !schema.contains_key("patternProperties") {
            self.closed.push(properties);
        }
    }

    fn add_values(&mut self, schema: &'a Map<String, Value>) {
        self.value = self.value.or(schema.get("const"));
        self.values = self.values.or(schema.get("enum").and_then(Value::as_array));
        let named = match schema.get("type") {
            Some(Value::String(name)) => Some(BTreeSet::from([type_named(name)])),
            Some(Value::Array(names)) => {
                Some(names.iter().filter_map(Value::as_str).map(type_named).collect())
            }
            Some(_) | None => None,
        };
        let of_value = schema.get("const").map(|value| BTreeSet::from([type_of(value)]));
        let of_values = schema.get("enum").and_then(Value::as_array);
        let of_values = of_values.map(|values| values.iter().map(type_of).collect());
        for types in [named, of_value, of_values].into_iter().flatten() {
            self.types = Some(match self.types.take() {
                Some(known) => known.intersection(&types).copied().collect(),
                None => types,
            });
        }
    }

    /// By types and listed values alone.
    fn exclude(&self, other: &Facts<'a>) -> bool {
        let has_shared_value = match (self.possible(), other.possible()) {
            (Some(first), Some(second)) => first
                .iter()
                .any(|value| second.iter().any(|other| same(value, other))),
            (_, _) => true,
        };
        let has_shared_type = self.shared_types(other).is_none_or(|types| !types.is_empty());
        self.is_never || other.is_never || !has_shared_type || !has_shared_value
    }

    fn shared_types(&self, other: &Facts<'a>) -> Option<BTreeSet<&'static str>> {
        match (&self.types, &other.types) {
            (Some(first), Some(second)) => Some(first.intersection(second).copied().collect()),
            (Some(types), None) | (None, Some(types)) => Some(types.clone()),
            (None, None) => None,
        }
    }

    /// All values that it may be, where they are listed.
    fn possible(&self) -> Option<Vec<&'a Value>> {
        match (self.value, self.values) {
            (Some(value), _) => Some(vec![value]),
            (None, Some(values)) => Some(values.iter().collect()),
            (None, None) => None,
        }
    }
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn target<'a>(reference: &Value, root: &'a Value) -> Option<&'a Value> {
    root.pointer(reference.as_str()?.strip_prefix('#')?)
}

/// 1.0 is an integer too.
fn type_named(name: &str) -> &'static str {
    match name {
        "object" => "object",
        "array" => "array",
        "string" => "string",
        "boolean" => "boolean",
        "null" => "null",
        _number => "number",
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Numbers of different spelling may be equal, so those within others count as equal to anything.
fn same(first: &Value, second: &Value) -> bool {
    match (first, second) {
        (Value::Number(first), Value::Number(second)) => first.as_f64() == second.as_f64(),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => true,
        (first, second) => first == second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_tells_schemas_apart_is_found_and_nothing_else_is_believed_to() {
        let root = json!({"$defs": {
            "cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
            "dog": {"allOf": [{"$ref": "#/$defs/animal"}, {"properties": {"kind": {"enum": ["dog", "wolf"]}}}]},
            "animal": {"type": "object", "required": ["name"]},
            "loop": {"$ref": "#/$defs/loop"},
        }});
        let closed = |name: &str| json!({"type": "object", "properties": {name: {}}, "required": [name], "additionalProperties": false});
        for (branches, expected) in [
            (
                json!([{"type": "string"}, {"type": ["null", "object"]}, {"type": "integer"}]),
                true,
            ),
            (json!([{"type": "number"}, {"type": "integer"}]), false),
            (json!([{"const": 1}, {"enum": [2, "a"]}]), true),
            (json!([{"const": 1}, {"enum": [1.0, "a"]}]), false),
            (json!([{"const": {"a": 1}}, {"const": {"a": 1.0}}]), false),
            (json!([{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}]), true),
            (
                json!([{"$ref": "#/$defs/animal"}, {"$ref": "#/$defs/dog"}]),
                false,
            ),
            (json!([{"$ref": "#/$defs/loop"}, {"type": "null"}]), false),
            (json!([closed("a"), closed("b")]), true),
            (
                json!([closed("a"), {"type": "object", "properties": {"a": false}}]),
                true,
            ),
            (
                json!([{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]),
                false,
            ),
            // A text is valid under both.
            (
                json!([{"required": ["k"], "properties": {"k": {"const": 1}}}, {"required": ["k"], "properties": {"k": {"const": 2}}}]),
                false,
            ),
            (
                json!([{"anyOf": [{"type": "null"}, {"type": "boolean"}]}, {"type": "string"}]),
                true,
            ),
            (
                json!([{"anyOf": [{"type": "null"}, {"type": "string"}]}, {"type": "string"}]),
                false,
            ),
            (json!([true, {"type": "string"}]), false),
            (json!([false, {"type": "string"}]), true),
        ] {
            let branches = branches.as_array().unwrap();
            assert_eq!(
                Search::new(&root).are_exclusive(branches),
                expected,
                "{branches:?}"
            );
        }
    }
}
