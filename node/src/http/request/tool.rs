//! The tools of a chat, and the calls in its messages.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// As many as OpenAI takes.
const TOOLS_MAX: usize = 128;
/// More than any answer has, and a bound for memory.
const CALLS_MAX: usize = 128;

/// The tools that the model may call.
pub type Tools = Bounded<RequestTool, TOOLS_MAX>;

/// The calls of an assistant's message.
pub type RequestCalls = Bounded<RequestCall, CALLS_MAX>;

/// A function that the model may call.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
#[schemars(rename = "Tool")]
pub struct RequestTool {
    #[serde(rename = "type")]
    _kind: ToolKind,
    pub function: RequestFunction,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase", expecting = "`function`")]
pub enum ToolKind {
    Function,
}

#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
#[schemars(rename = "FunctionDefinition")]
pub struct RequestFunction {
    /// Letters, digits, `_` and `-`; at most 64.
    pub name: String,
    /// What it does, for the model to know when to call it.
    pub description: Option<String>,
    /// The JSON schema of its arguments, of type `object`; left out, it takes none.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub parameters: Option<Box<RawValue>>,
    /// Calls always match the schema.
    pub strict: Option<bool>,
}

/// Whether and what the model calls.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToolChoice {
    /// Nothing: the model does not hear of the tools.
    None,
    /// As the model likes.
    Auto,
    /// At least one tool.
    Required,
    /// This function.
    Function(String),
}

/// A call that the assistant made.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
#[schemars(rename = "ToolCall")]
pub struct RequestCall {
    pub id: Option<String>,
    #[serde(rename = "type")]
    _kind: Option<ToolKind>,
    pub function: RequestCalledFunction,
}

#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
#[schemars(rename = "CalledFunction")]
pub struct RequestCalledFunction {
    pub name: String,
    /// JSON as text; an object is taken too.
    #[schemars(with = "Option<String>")]
    pub arguments: Option<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ToolChoice, D::Error> {
        deserializer.deserialize_any(ToolChoiceVisitor)
    }
}

struct ToolChoiceVisitor;

#[derive(Deserialize)]
struct NamedTool {
    #[serde(rename = "type")]
    _kind: ToolKind,
    function: NamedFunction,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct NamedFunction {
    name: String,
}

impl<'de> Visitor<'de> for ToolChoiceVisitor {
    type Value = ToolChoice;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("none, auto, required or an object that names a function")
    }

    fn visit_str<E: de::Error>(self, choice: &str) -> Result<ToolChoice, E> {
        match choice {
            "none" => Ok(ToolChoice::None),
            "auto" => Ok(ToolChoice::Auto),
            "required" => Ok(ToolChoice::Required),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoice, A::Error> {
        let named = NamedTool::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ToolChoice::Function(named.function.name))
    }
}

impl JsonSchema for ToolChoice {
    fn schema_name() -> Cow<'static, str> {
        "ToolChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"enum": ["none", "auto", "required"]},
            {
                "type": "object",
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}},
                        "required": ["name"],
                    },
                },
                "required": ["type", "function"],
            },
        ]})
    }
}

/// A list of at most `MAX`.
pub struct Bounded<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = Bounded<T, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() == MAX {
                return Err(de::Error::custom(format!("has more than {MAX} entries")));
            }
            items.push(item);
        }
        Ok(Bounded(items))
    }
}

impl<T: JsonSchema, const MAX: usize> JsonSchema for Bounded<T, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": generator.subschema_for::<T>(), "maxItems": MAX})
    }
}
