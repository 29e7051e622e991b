//! The prompts of a completion, in all the ways they may be written.

use super::list::{TokenId, TokenIds};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Above what any node runs for one request (`Limits::streams_max`), and a bound for memory.
const PROMPTS_MAX: usize = 2048;

/// A string, a list of strings, a list of token ids, or a list of such lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prompts(pub Vec<Prompt>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Prompts, D::Error> {
        deserializer.deserialize_any(PromptsVisitor)
    }
}

struct PromptsVisitor;

const EXPECTED: &str = "a string, a list of strings, a list of token ids or a list of lists of token ids";

impl<'de> Visitor<'de> for PromptsVisitor {
    type Value = Prompts;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(EXPECTED)
    }

    fn visit_str<E>(self, text: &str) -> Result<Prompts, E> {
        Ok(Prompts(vec![Prompt::Text(text.to_string())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompts, A::Error> {
        let mut prompts = Vec::new();
        match list.next_element()? {
            None => return Err(de::Error::custom(format!("must be {EXPECTED}; it is empty"))),
            Some(Entry::Token(first)) => {
                let mut ids = vec![first];
                while let Some(id) = list.next_element::<TokenId>()? {
                    ids.push(id.get() as u32);
                }
                return Ok(Prompts(vec![Prompt::Tokens(ids)]));
            }
            Some(Entry::Prompt(first)) => prompts.push(first),
        }
        while let Some(entry) = list.next_element()? {
            if prompts.len() == PROMPTS_MAX {
                return Err(de::Error::custom(format!("has more than {PROMPTS_MAX} prompts")));
            }
            match entry {
                Entry::Prompt(prompt) => prompts.push(prompt),
                Entry::Token(_) => return Err(de::Error::custom(format!("must be {EXPECTED}"))),
            }
        }
        Ok(Prompts(prompts))
    }
}

/// What stands in a list under `prompt`.
enum Entry {
    Prompt(Prompt),
    Token(u32),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string, a token id or a list of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
        Ok(Entry::Prompt(Prompt::Text(text.to_string())))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Entry, E> {
        match u32::try_from(id) {
            Ok(id) => Ok(Entry::Token(id)),
            Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(id), &self)),
        }
    }

    fn visit_f64<E: de::Error>(self, id: f64) -> Result<Entry, E> {
        match id.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&id) {
            true => Ok(Entry::Token(id as u32)),
            false => Err(E::invalid_value(de::Unexpected::Float(id), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Entry, A::Error> {
        let TokenIds(ids) = Deserialize::deserialize(de::value::SeqAccessDeserializer::new(list))?;
        Ok(Entry::Prompt(Prompt::Tokens(ids)))
    }
}

impl JsonSchema for Prompts {
    fn schema_name() -> Cow<'static, str> {
        "Prompts".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let ids = generator.subschema_for::<TokenIds>();
        json_schema!({"anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": PROMPTS_MAX},
            ids,
            {"type": "array", "items": ids, "minItems": 1, "maxItems": PROMPTS_MAX},
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Vec<Prompt>> {
        serde_json::from_str::<Prompts>(text)
            .ok()
            .map(|prompts| prompts.0)
    }

    #[test]
    fn every_way_to_write_a_prompt_is_read() {
        let text = |text: &str| Prompt::Text(text.to_string());
        assert_eq!(parsed(r#""a""#), Some(vec![text("a")]));
        assert_eq!(parsed(r#"["a", "b"]"#), Some(vec![text("a"), text("b")]));
        assert_eq!(parsed("[1, 2.0]"), Some(vec![Prompt::Tokens(vec![1, 2])]));
        assert_eq!(
            parsed(r#"[[1], "a", []]"#),
            Some(vec![Prompt::Tokens(vec![1]), text("a"), Prompt::Tokens(vec![])])
        );
    }

    #[test]
    fn what_is_no_prompt_is_refused() {
        for bad in [
            "[]",
            "5",
            "{}",
            "[1, \"a\"]",
            "[\"a\", 1]",
            "[-1]",
            "[[[1]]]",
            "[4294967296]",
            "[null]",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
        let many = format!("[{}]", vec!["[1]"; PROMPTS_MAX + 1].join(","));
        assert_eq!(parsed(&many), None);
    }
}
