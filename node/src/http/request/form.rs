//! What form an answer must have.

use super::unserved::Unserved;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// More than anybody means; also a bound of what a body takes in memory.
const CHOICES_MAX: usize = 4096;

/// `response_format`, as OpenAI has it.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct ResponseFormat {
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// For `json_schema`.
    pub json_schema: Option<JsonSchemaFormat>,
    /// For `json_object`, as llama.cpp has it: the answer is valid under this JSON schema.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub schema: Option<Box<RawValue>>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case", expecting = "text, json_object or json_schema")]
pub enum FormatKind {
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct JsonSchemaFormat {
    /// The answer is valid under this JSON schema; a keyword that is not supported is refused by name.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub schema: Option<Box<RawValue>>,
    /// The schema is always kept to, whatever stands here.
    #[allow(dead_code, reason = "checked to be a flag, and part of the description")]
    pub strict: Option<bool>,
}

/// `structured_outputs`, as vLLM has it: exactly one of the forms.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct StructuredOutputs {
    /// The answer is valid under this JSON schema, given as an object or as its text.
    #[schemars(with = "Option<serde_json::Value>")]
    pub json: Option<Box<RawValue>>,
    /// The whole answer matches this regular expression, in the syntax of Rust's `regex` crate; `\d` and `\w` are of ASCII.
    pub regex: Option<String>,
    /// The answer is one of these.
    pub choice: Option<Choices>,
    /// The answer is of this context-free grammar, in the dialect of Lark that llguidance reads: rules are `name: …`, the
    /// whole answer is `start`.
    pub grammar: Option<String>,
    /// The answer is any JSON object.
    pub json_object: Option<bool>,
    /// JSON has no white space between its tokens, also that of `response_format`.
    pub disable_any_whitespace: Option<bool>,
    pub structural_tag: Option<Unserved>,
    pub whitespace_pattern: Option<Unserved>,
    pub disable_additional_properties: Option<Unserved>,
}

/// Texts to choose from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Choices(pub Vec<String>);

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Choices, D::Error> {
        deserializer.deserialize_seq(ChoicesVisitor)
    }
}

struct ChoicesVisitor;

impl<'de> Visitor<'de> for ChoicesVisitor {
    type Value = Choices;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choices, A::Error> {
        let mut choices = Vec::new();
        while let Some(choice) = list.next_element::<String>()? {
            if choices.len() == CHOICES_MAX {
                return Err(de::Error::custom(format!("has more than {CHOICES_MAX} strings")));
            }
            choices.push(choice);
        }
        Ok(Choices(choices))
    }
}

impl JsonSchema for Choices {
    fn schema_name() -> Cow<'static, str> {
        "Choices".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": {"type": "string"}, "maxItems": CHOICES_MAX})
    }
}
