//! What a chat template is given.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the template is given.
#[derive(Default)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// The tools as the client wrote them; empty: none is offered.
    pub tools: Vec<Value>,
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// `chat_template_kwargs`: further names for the template.
    pub variables: Map<String, Value>,
}

/// One message, with text only.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
pub struct Message {
    pub role: String,
    /// `None`, as beside calls, is `none` for the template too.
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the assistant thought before it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// What the assistant called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<MadeCall>,
    /// Which call a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// A call of an earlier turn.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct MadeCall {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: CallKind,
    pub function: CalledFunction,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum CallKind {
    Function,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct CalledFunction {
    pub name: String,
    /// The parsed object; the text itself where that is no JSON.
    pub arguments: Value,
}
