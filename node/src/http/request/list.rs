//! Lists of plain values, as small in memory as they can be.

use super::scalar::{Integer, Number};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 1024;
const BIASES_MAX: usize = 1024;

/// Any token id; whether the model knows it is asked later.
pub type TokenId = Integer<0, { u32::MAX as i64 }>;

/// A list of token ids: four bytes each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenIds(pub Vec<u32>);

impl<'de> Deserialize<'de> for TokenIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TokenIds, D::Error> {
        deserializer.deserialize_seq(TokenIdsVisitor)
    }
}

struct TokenIdsVisitor;

impl<'de> Visitor<'de> for TokenIdsVisitor {
    type Value = TokenIds;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of token ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TokenIds, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element::<TokenId>()? {
            ids.push(id.get() as u32);
        }
        Ok(TokenIds(ids))
    }
}

impl JsonSchema for TokenIds {
    fn schema_name() -> Cow<'static, str> {
        "TokenIds".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": generator.subschema_for::<TokenId>()})
    }
}

/// One string or several.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StopStrings(pub Vec<String>);

impl<'de> Deserialize<'de> for StopStrings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StopStrings, D::Error> {
        deserializer.deserialize_any(StopStringsVisitor)
    }
}

struct StopStringsVisitor;

impl<'de> Visitor<'de> for StopStringsVisitor {
    type Value = StopStrings;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or a list of strings")
    }

    fn visit_str<E: de::Error>(self, stop: &str) -> Result<StopStrings, E> {
        Ok(StopStrings(vec![checked_stop(stop.to_string())?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StopStrings, A::Error> {
        let mut stops = Vec::new();
        while let Some(stop) = list.next_element::<String>()? {
            if stops.len() == STOPS_MAX {
                return Err(de::Error::custom(format!("has more than {STOPS_MAX} strings")));
            }
            stops.push(checked_stop(stop)?);
        }
        Ok(StopStrings(stops))
    }
}

fn checked_stop<E: de::Error>(stop: String) -> Result<String, E> {
    match (1..=STOP_BYTES_MAX).contains(&stop.len()) {
        true => Ok(stop),
        false => Err(E::custom(format!(
            "must have 1 to {STOP_BYTES_MAX} bytes in each string"
        ))),
    }
}

impl JsonSchema for StopStrings {
    fn schema_name() -> Cow<'static, str> {
        "StopStrings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": STOPS_MAX},
        ]})
    }
}

/// From token ids to what is added to their logits; ids ascending, each once.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Biases(pub Vec<(u32, f32)>);

impl<'de> Deserialize<'de> for Biases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Biases, D::Error> {
        deserializer.deserialize_map(BiasesVisitor)
    }
}

struct BiasesVisitor;

impl<'de> Visitor<'de> for BiasesVisitor {
    type Value = Biases;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object from token ids to numbers from -100 to 100")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Biases, A::Error> {
        let mut biases = Vec::new();
        while let Some(id) = map.next_key::<Cow<'de, str>>()? {
            let id = id
                .parse()
                .map_err(|_| de::Error::custom("must have token ids as its keys"))?;
            if biases.len() == BIASES_MAX {
                return Err(de::Error::custom(format!("has more than {BIASES_MAX} entries")));
            }
            biases.push((id, map.next_value::<Number<-100, 100>>()?.get()));
        }
        biases.sort_by_key(|(id, _)| *id);
        match biases.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            true => Err(de::Error::custom("has a token id twice")),
            false => Ok(Biases(biases)),
        }
    }
}

impl JsonSchema for Biases {
    fn schema_name() -> Cow<'static, str> {
        "Biases".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<Number<-100, 100>>(),
            "maxProperties": BIASES_MAX,
        })
    }
}
