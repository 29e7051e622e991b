//! Bounds of numbers, as the compiler follows them to the letter.

use super::compiler::GrammarError;
use serde_json::{Map, Number, Value};

/// llguidance loses an exclusive bound at a whole number when the other bound is near. So answers keep this distance.
const DISTANCE: f64 = 1e-9;

const COUNTS: [&str; 6] = [
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];

#[derive(Clone, Copy)]
enum Side {
    Least,
    Most,
}

impl Side {
    fn keywords(self) -> (&'static str, &'static str) {
        match self {
            Side::Least => ("minimum", "exclusiveMinimum"),
            Side::Most => ("maximum", "exclusiveMaximum"),
        }
    }

    /// The next number on the side of what is allowed.
    fn next(self, value: f64) -> f64 {
        match self {
            Side::Least => value.next_up(),
            Side::Most => value.next_down(),
        }
    }

    fn within(self, value: f64) -> f64 {
        match self {
            Side::Least => (value + DISTANCE).max(value.next_up()),
            Side::Most => (value - DISTANCE).min(value.next_down()),
        }
    }
}

pub fn settle(schema: &mut Map<String, Value>) -> Result<(), GrammarError> {
    for keyword in COUNTS {
        // 2.0 is a count too.
        if let Some(count) = schema.get(keyword).and_then(Value::as_f64)
            && count.fract() == 0.0
            && (0.0..1e15).contains(&count)
        {
            schema[keyword] = Value::from(count as u64);
        }
    }
    let is_fractional = is_fractional(schema);
    for side in [Side::Least, Side::Most] {
        settle_flag(schema, side);
        let (inclusive, exclusive) = side.keywords();
        for keyword in [inclusive, exclusive] {
            if let Some(Value::Number(number)) = schema.get(keyword) {
                schema[keyword] = Value::from(inward(keyword, number, side)?);
            }
        }
        let bound = schema.get(exclusive).and_then(Value::as_f64);
        if let Some(bound) = bound.filter(|bound| is_fractional && bound.fract() == 0.0) {
            schema.shift_remove(exclusive);
            let bound = side.within(bound);
            let known = schema.get(inclusive).and_then(Value::as_f64).unwrap_or(bound);
            let bound = match side {
                Side::Least => bound.max(known),
                Side::Most => bound.min(known),
            };
            schema.insert(inclusive.to_owned(), Value::from(bound));
        }
    }
    Ok(())
}

/// In draft 4 an exclusive bound is an inclusive one with a flag beside it.
fn settle_flag(schema: &mut Map<String, Value>, side: Side) {
    let (inclusive, exclusive) = side.keywords();
    let Some(Value::Bool(is_exclusive)) = schema.get(exclusive) else {
        return;
    };
    let is_exclusive = *is_exclusive;
    schema.shift_remove(exclusive);
    if is_exclusive && let Some(bound) = schema.shift_remove(inclusive) {
        schema.insert(exclusive.to_owned(), bound);
    }
}

/// May a number with a fraction be valid?
fn is_fractional(schema: &Map<String, Value>) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => name == "number",
        Some(Value::Array(names)) => names.iter().any(|name| name == "number"),
        Some(_) | None => true,
    }
}

/// The bound in floating point; where that is not exact, the next one that allows no more.
fn inward(keyword: &str, number: &Number, side: Side) -> Result<f64, GrammarError> {
    let value = number.as_f64().filter(|value| value.is_finite());
    let value = value.ok_or_else(|| GrammarError::new(format!("`{keyword}` is too large: {number}")))?;
    let exact = number
        .as_i64()
        .map(i128::from)
        .or(number.as_u64().map(i128::from));
    let is_beyond = exact.is_some_and(|exact| match side {
        Side::Least => (value as i128) < exact,
        Side::Most => value as i128 > exact,
    });
    Ok(match is_beyond {
        true => side.next(value),
        false => value,
    })
}
