//! The messages of a chat.

use super::tool::RequestCalls;
use super::unserved::Unserved;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// No conversation fills a context with so many, and a bound for memory.
const MESSAGES_MAX: usize = 4096;

/// At least one message, the oldest first.
pub struct Messages(pub Vec<RequestMessage>);

/// One message of a conversation.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
#[schemars(rename = "Message")]
pub struct RequestMessage {
    pub role: Role,
    /// A string or a list of text parts, which are joined by line breaks; the assistant's may be left out.
    pub content: Option<Content>,
    /// Who speaks, for templates that show it.
    pub name: Option<String>,
    /// What the assistant said instead of an answer; counts where it has no `content`.
    pub refusal: Option<String>,
    /// What the assistant called.
    pub tool_calls: Option<RequestCalls>,
    /// In messages of tools: which call this answers.
    pub tool_call_id: Option<String>,
    /// What the assistant thought before it answered, for templates that show it.
    pub reasoning_content: Option<String>,
    /// Another name of `reasoning_content`.
    pub reasoning: Option<String>,
    pub function_call: Option<Unserved>,
    /// Not supported under this name: see `continue_final_message`.
    pub prefix: Option<Unserved>,
}

#[derive(JsonSchema, Clone, Copy, PartialEq, Eq, Debug)]
#[schemars(rename_all = "lowercase")]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    /// Known so that it can be refused with what to use instead.
    #[schemars(skip)]
    Function,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
            Role::Function => "function",
        }
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        deserializer.deserialize_str(RoleVisitor)
    }
}

struct RoleVisitor;

impl Visitor<'_> for RoleVisitor {
    type Value = Role;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("system, developer, user, assistant or tool")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Role, E> {
        match name {
            "system" => Ok(Role::System),
            "developer" => Ok(Role::Developer),
            "user" => Ok(Role::User),
            "assistant" => Ok(Role::Assistant),
            "tool" => Ok(Role::Tool),
            "function" => Ok(Role::Function),
            _other => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
        }
    }
}

/// The text of a message: parts are joined by line breaks as they are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content(pub String);

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Messages, D::Error> {
        deserializer.deserialize_seq(MessagesVisitor)
    }
}

struct MessagesVisitor;

impl<'de> Visitor<'de> for MessagesVisitor {
    type Value = Messages;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of at least one message")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Messages, A::Error> {
        let mut messages = Vec::new();
        while let Some(message) = list.next_element()? {
            if messages.len() == MESSAGES_MAX {
                return Err(de::Error::custom(format!(
                    "has more than {MESSAGES_MAX} messages"
                )));
            }
            messages.push(message);
        }
        match messages.is_empty() {
            true => Err(de::Error::custom("must be a list of at least one message")),
            false => Ok(Messages(messages)),
        }
    }
}

impl JsonSchema for Messages {
    fn schema_name() -> Cow<'static, str> {
        "Messages".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": generator.subschema_for::<RequestMessage>(),
            "minItems": 1,
            "maxItems": MESSAGES_MAX,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or a list of parts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content(text.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut content = String::new();
        let mut is_first = true;
        while let Some(part) = parts.next_element::<Part>()? {
            if !is_first {
                content.push('\n');
            }
            is_first = false;
            content.push_str(&part.text);
        }
        Ok(Content(content))
    }
}

/// One part of a message's content.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object with `type` and `text`")]
struct Part {
    #[serde(rename = "type")]
    _kind: PartKind,
    text: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", expecting = "text: other parts are not supported")]
enum PartKind {
    Text,
}

impl JsonSchema for Content {
    fn schema_name() -> Cow<'static, str> {
        "Content".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let part = generator.subschema_for::<Part>();
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": part}]})
    }
}
