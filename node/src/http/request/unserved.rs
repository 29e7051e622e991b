//! Fields that would change an answer and are not served.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A field that may stand in a request only with a value that asks for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unserved {
    /// `false`, `""`, `[]` or `{}`.
    AsksForNothing,
    AsksForSomething,
}

impl Unserved {
    fn unless(is_empty: bool) -> Unserved {
        match is_empty {
            true => Unserved::AsksForNothing,
            false => Unserved::AsksForSomething,
        }
    }
}

/// Whether a value of free form asks for nothing.
pub fn is_empty(value: &RawValue) -> bool {
    matches!(serde_json::from_str(value.get()), Ok(Unserved::AsksForNothing))
}

impl<'de> Deserialize<'de> for Unserved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unserved, D::Error> {
        deserializer.deserialize_any(UnservedVisitor)
    }
}

struct UnservedVisitor;

impl<'de> Visitor<'de> for UnservedVisitor {
    type Value = Unserved;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("absent")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Unserved, E> {
        Ok(Unserved::unless(!flag))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unserved, E> {
        Ok(Unserved::AsksForSomething)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unserved, E> {
        Ok(Unserved::AsksForSomething)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unserved, E> {
        Ok(Unserved::AsksForSomething)
    }

    fn visit_str<E>(self, text: &str) -> Result<Unserved, E> {
        Ok(Unserved::unless(text.is_empty()))
    }

    fn visit_unit<E>(self) -> Result<Unserved, E> {
        Ok(Unserved::AsksForNothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unserved, A::Error> {
        let mut is_empty = true;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_empty = false;
        }
        Ok(Unserved::unless(is_empty))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unserved, A::Error> {
        let mut is_empty = true;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_empty = false;
        }
        Ok(Unserved::unless(is_empty))
    }
}

/// A number that may stand in a request only where it is `NEUTRAL`, which changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnservedNumber<const NEUTRAL: i32>(pub Unserved);

impl<'de, const NEUTRAL: i32> Deserialize<'de> for UnservedNumber<NEUTRAL> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnservedNumberVisitor::<NEUTRAL>)
    }
}

struct UnservedNumberVisitor<const NEUTRAL: i32>;

impl<const NEUTRAL: i32> Visitor<'_> for UnservedNumberVisitor<NEUTRAL> {
    type Value = UnservedNumber<NEUTRAL>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{NEUTRAL} or absent: it is not supported")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(UnservedNumber(Unserved::unless(number == f64::from(NEUTRAL))))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.visit_f64(number as f64)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.visit_f64(number as f64)
    }
}

impl<const NEUTRAL: i32> JsonSchema for UnservedNumber<NEUTRAL> {
    fn schema_name() -> Cow<'static, str> {
        format!("Unserved{NEUTRAL}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "Not supported: any other value is refused.", "enum": [null, NEUTRAL]})
    }
}

impl JsonSchema for Unserved {
    fn schema_name() -> Cow<'static, str> {
        "Unserved".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Not supported: a value that asks for something is refused.",
            "enum": [null, false, "", [], {}],
        })
    }
}
