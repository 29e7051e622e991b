//! Bounds of numbers, as the compiler follows them to the letter.

use super::compiler::GrammarError;
use serde_json::{Map, Number, Value};

/// llguidance loses an exclusive bound at a whole number when the other bound is near. So answers keep this distance.
const DISTANCE: f64 = 1e-9;

/// llguidance reckons bounds of whole numbers in 64 bits, takes those beyond for the last one, and recurses without end where it
/// has to negate the least.
const FOLLOWED_MAX: f64 = 9e18;
/// From here on a whole number and the next one are the same in floating point, so that what an exclusive bound excludes is lost.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

const BOUNDS: [&str; 4] = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"];

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
        let is_lost = |bound: f64| bound.abs() >= EXACT_MAX || is_fractional && bound.fract() == 0.0;
        if let Some(bound) = bound.filter(|bound| is_lost(*bound)) {
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
    let value = match is_beyond {
        true => side.next(value),
        false => value,
    };
    followed(keyword, value, side)
}

/// A bound that allows no more, and that the compiler follows.
fn followed(keyword: &str, value: f64, side: Side) -> Result<f64, GrammarError> {
    match side {
        Side::Least if value > FOLLOWED_MAX => Err(beyond(keyword)),
        Side::Most if value < -FOLLOWED_MAX => Err(beyond(keyword)),
        Side::Least => Ok(value.max(-FOLLOWED_MAX)),
        Side::Most => Ok(value.min(FOLLOWED_MAX)),
    }
}

/// Refuses bounds that the compiler does not follow, in a schema that it is handed as it is.
pub fn check_as_it_is(schema: &Value) -> Result<(), GrammarError> {
    match schema {
        Value::Object(members) => {
            for keyword in BOUNDS {
                let bound = members.get(keyword).and_then(Value::as_f64);
                if bound.is_some_and(|bound| bound.abs() > FOLLOWED_MAX) {
                    return Err(beyond(keyword));
                }
            }
            members.values().try_for_each(check_as_it_is)
        }
        Value::Array(items) => items.iter().try_for_each(check_as_it_is),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn beyond(keyword: &str) -> GrammarError {
    GrammarError::new(format!(
        "`{keyword}` is beyond 9e18: bounds of so large numbers cannot be followed"
    ))
}
