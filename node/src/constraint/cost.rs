//! What of a schema llguidance compiles without fuel, in a time that grows with the square of it.

use super::compiler::GrammarError;
use serde_json::{Map, Number, Value};
use std::collections::BTreeSet;

/// Of the properties of an object, added up over all objects: 0.3 s on one core of 2023.
const PROPERTY_PAIRS_MAX: usize = 1 << 20;
/// Every pattern is compared with every other wherever two schemas are to be valid at once; 0.1 ms each.
const PATTERN_PAIRS_MAX: usize = 4_000;

/// Of all `multipleOf` together, or of their product where several may have to be true at once: each is followed by as many states,
/// and made without fuel in a time that grows with the square of it; 20 ms for these.
const DIVISORS_MAX: u64 = 20_000;

/// Refuses what would take too long. Of ten thousand schemas that people wrote, one comes near.
pub fn check(schema: &Value) -> Result<(), GrammarError> {
    let mut count = Count::default();
    count.add(schema);
    if count.property_pairs > PROPERTY_PAIRS_MAX {
        return Err(GrammarError::new("`properties` has too many names"));
    }
    if count.divided() > DIVISORS_MAX {
        return Err(GrammarError::new(format!(
            "`multipleOf` is too large, or there are too many: {DIVISORS_MAX} of all together, without a decimal point, are followed"
        )));
    }
    let patterns = count.patterns.len();
    let shared = count
        .combined
        .saturating_mul(patterns * patterns.saturating_sub(1) / 2);
    match shared.saturating_add(count.pattern_pairs) > PATTERN_PAIRS_MAX {
        true => Err(GrammarError::new(
            "`patternProperties` has too many patterns, or they are combined in too many ways",
        )),
        false => Ok(()),
    }
}

#[derive(Default)]
struct Count<'a> {
    property_pairs: usize,
    pattern_pairs: usize,
    patterns: BTreeSet<&'a str>,
    /// Schemas that have to be valid beside others.
    combined: usize,
    divisors: BTreeSet<u64>,
    /// May several schemas have to be valid at once, whatever they are about?
    has_combinations: bool,
}

/// Of a number without its decimal point.
fn divisor(number: &Number) -> u64 {
    let text = number.to_string();
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{}", fraction.trim_end_matches('0'));
    let digits = digits.trim_start_matches('-').parse().unwrap_or(u64::MAX);
    let zeros = exponent.parse::<i32>().unwrap_or(i32::MAX).max(0);
    10_u64.saturating_pow(zeros.unsigned_abs()).saturating_mul(digits)
}

impl<'a> Count<'a> {
    fn divided(&self) -> u64 {
        let divisors = self.divisors.iter().copied();
        match self.has_combinations {
            true => divisors.fold(1, u64::saturating_mul),
            false => divisors.fold(0, u64::saturating_add),
        }
    }

    fn add(&mut self, value: &'a Value) {
        match value {
            Value::Object(schema) => {
                self.add_object(schema);
                schema.values().for_each(|value| self.add(value));
            }
            Value::Array(items) => items.iter().for_each(|value| self.add(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn add_object(&mut self, schema: &'a Map<String, Value>) {
        let members = |keyword: &str| schema.get(keyword).and_then(Value::as_object);
        let names = members("properties").map_or(0, Map::len);
        self.property_pairs = self.property_pairs.saturating_add(names * names);
        if let Some(patterns) = members("patternProperties") {
            self.pattern_pairs += patterns.len() * patterns.len().saturating_sub(1) / 2;
            self.patterns.extend(patterns.keys().map(String::as_str));
        }
        if let Some(Value::Number(number)) = schema.get("multipleOf") {
            self.divisors.insert(divisor(number));
        }
        let combines = [
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "if",
            "$ref",
            "$dynamicRef",
            "dependentSchemas",
        ];
        self.has_combinations |= combines.iter().any(|keyword| schema.contains_key(*keyword));
        let ways = |keyword: &str| schema.get(keyword).and_then(Value::as_array).map_or(0, Vec::len);
        self.combined += ways("allOf");
        let is_alone = !schema.keys().any(|keyword| is_about_objects(keyword));
        if !is_alone {
            self.combined += ways("anyOf") + ways("oneOf") + usize::from(schema.contains_key("$ref"));
        }
    }
}

fn is_about_objects(keyword: &str) -> bool {
    matches!(
        keyword,
        "allOf"
            | "properties"
            | "patternProperties"
            | "additionalProperties"
            | "minProperties"
            | "maxProperties"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn named(count: usize) -> Value {
        let members = (0..count).map(|index| (format!("p{index}"), json!({})));
        Value::Object(members.collect())
    }

    #[test]
    fn what_grows_with_the_square_is_bounded_in_all_and_what_people_write_is_below() {
        let objects = |count: usize, names: usize| {
            let objects: Vec<Value> = (0..count).map(|_| json!({"properties": named(names)})).collect();
            check(&json!({"anyOf": objects}))
        };
        assert!(objects(1, 1024).is_ok() && objects(1, 1025).is_err());
        assert!(objects(100, 100).is_ok() && objects(100, 110).is_err());
        assert!(check(&json!({"patternProperties": named(80)})).is_ok());
        assert!(check(&json!({"patternProperties": named(100)})).is_err());
        let combined = |times: usize| {
            let all = vec![json!({"$ref": "#/$defs/a"}); times];
            check(&json!({"allOf": all, "$defs": {"a": {"patternProperties": named(10)}}}))
        };
        assert!(combined(50).is_ok() && combined(100).is_err());
    }
}
