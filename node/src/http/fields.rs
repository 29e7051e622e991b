//! Fields of a JSON request, each checked for kind and range, so that every complaint names its field.

use super::error::ApiError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// A JSON object. A field that is `null` counts as absent; what nobody asks for is ignored.
pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(ApiError::malformed("the body is not a JSON object")),
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                Err(ApiError::malformed(format!(
                    "the body is not valid JSON ({place})"
                )))
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub fn required(&self, name: &str) -> Result<&Value, ApiError> {
        self.get(name)
            .ok_or_else(|| ApiError::invalid(name, format!("`{name}` is missing")))
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.read(name, "a string", Value::as_str)
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub fn list(&self, name: &str) -> Result<Option<&Vec<Value>>, ApiError> {
        self.read(name, "a list", Value::as_array)
    }

    pub fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, ApiError> {
        self.read(name, "an object", Value::as_object)
    }

    pub fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.read(name, &expected, |value| {
            whole(value).filter(|number| range.contains(number))
        })
    }

    pub fn number(&self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, ApiError> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let in_range = |number: &f32| range.contains(number);
        self.read(name, &expected, |value| {
            value.as_f64().map(|number| number as f32).filter(in_range)
        })
    }

    fn read<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(ApiError::invalid(name, format!("`{name}` must be {expected}"))),
        }
    }
}

/// Also `1.0`, which some clients send for 1.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value
            .as_f64()
            .filter(|number| number.fract() == 0.0 && number.abs() < 9e15)?;
        Some(number as i64)
    })
}
