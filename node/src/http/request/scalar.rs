//! Numbers with their ranges.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;

/// An integer from `MIN` to `MAX`. Some clients write `1.0` for 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Integer<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Integer<MIN, MAX> {
    pub fn get(self) -> i64 {
        self.0
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Integer<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntegerVisitor::<MIN, MAX>)
    }
}

struct IntegerVisitor<const MIN: i64, const MAX: i64>;

impl<const MIN: i64, const MAX: i64> Visitor<'_> for IntegerVisitor<MIN, MAX> {
    type Value = Integer<MIN, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an integer from {MIN} to {MAX}")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        match (MIN..=MAX).contains(&number) {
            true => Ok(Integer(number)),
            false => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        match whole(number) {
            Some(number) => self.visit_i64(number),
            None => Err(E::invalid_value(de::Unexpected::Float(number), &self)),
        }
    }
}

/// Beyond this bound floating-point numbers skip integers.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

impl<const MIN: i64, const MAX: i64> JsonSchema for Integer<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Integer{MIN}To{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

/// A number from `MIN` to `MAX`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Number<const MIN: i32, const MAX: i32>(f32);

impl<const MIN: i32, const MAX: i32> Number<MIN, MAX> {
    pub fn get(self) -> f32 {
        self.0
    }
}

impl<'de, const MIN: i32, const MAX: i32> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor::<MIN, MAX>)
    }
}

struct NumberVisitor<const MIN: i32, const MAX: i32>;

impl<const MIN: i32, const MAX: i32> Visitor<'_> for NumberVisitor<MIN, MAX> {
    type Value = Number<MIN, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a number from {MIN} to {MAX}")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        let rounded = number as f32;
        match (MIN as f32..=MAX as f32).contains(&rounded) {
            true => Ok(Number(rounded)),
            false => Err(E::invalid_value(de::Unexpected::Float(number), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.visit_f64(number as f64)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.visit_f64(number as f64)
    }
}

impl<const MIN: i32, const MAX: i32> JsonSchema for Number<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Number{MIN}To{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": MIN, "maximum": MAX})
    }
}

/// 64 bits, written as a number with or without sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(pub u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seed, D::Error> {
        deserializer.deserialize_any(SeedVisitor)
    }
}

struct SeedVisitor;

impl Visitor<'_> for SeedVisitor {
    type Value = Seed;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an integer of at most 64 bits")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Seed, E> {
        Ok(Seed(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Seed, E> {
        Ok(Seed(number as u64))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Seed, E> {
        match whole(number) {
            Some(number) => self.visit_i64(number),
            None => Err(E::invalid_value(de::Unexpected::Float(number), &self)),
        }
    }
}

impl JsonSchema for Seed {
    fn schema_name() -> Cow<'static, str> {
        "Seed".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_may_be_written_with_a_point() {
        let parsed = |text| {
            serde_json::from_str::<Integer<0, 20>>(text)
                .ok()
                .map(Integer::get)
        };
        assert_eq!(
            (parsed("5.0"), parsed("20"), parsed("0e3")),
            (Some(5), Some(20), Some(0))
        );
        assert_eq!(
            (parsed("5.5"), parsed("21"), parsed("-1"), parsed("true")),
            (None, None, None, None)
        );
    }

    #[test]
    fn a_number_is_compared_as_it_will_be_used() {
        let parsed = |text| serde_json::from_str::<Number<0, 2>>(text).ok().map(Number::get);
        assert_eq!(
            (parsed("2"), parsed("0.1"), parsed("-0.0")),
            (Some(2.0), Some(0.1), Some(-0.0))
        );
        assert_eq!(
            (parsed("2.1"), parsed("1e300"), parsed("\"1\"")),
            (None, None, None)
        );
    }

    #[test]
    fn a_seed_has_64_bits_of_either_sign() {
        let parsed = |text| serde_json::from_str::<Seed>(text).ok();
        assert_eq!(parsed("-1"), Some(Seed(u64::MAX)));
        assert_eq!(parsed("18446744073709551615"), Some(Seed(u64::MAX)));
        assert_eq!((parsed("18446744073709551616"), parsed("0.5")), (None, None));
    }
}
