//! Values that a schema gives as they are: `const` and `enum`.

use super::compiler::GrammarError;
use super::pattern::is_writable;
use serde_json::{Number, Value};

/// Refuses what the compiler would take for another value.
pub fn check(keyword: &str, value: &Value) -> Result<(), GrammarError> {
    match value {
        Value::String(text) if !text.chars().all(is_writable) => Err(GrammarError::new(format!(
            "`{keyword}` has a text with control characters, which is not supported"
        ))),
        Value::Number(number) if !is_exact(number) => Err(GrammarError::new(format!(
            "`{keyword}` has the number {number}, which is too large to be written exactly"
        ))),
        Value::Array(values) => values.iter().try_for_each(|value| check(keyword, value)),
        Value::Object(members) => members.values().try_for_each(|value| check(keyword, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Whole numbers in floating point are exact up to here.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

pub fn is_exact(number: &Number) -> bool {
    number.as_f64().is_some_and(|value| value.abs() < EXACT_MAX)
}
