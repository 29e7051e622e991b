//! A tool, as a request offers it.

use serde_json::{Map, Value};

/// A function that the model may call.
#[derive(Clone, PartialEq, Debug)]
pub struct Tool {
    pub name: String,
    /// What templates see: the client's own JSON.
    pub definition: Value,
    /// The JSON schema of its arguments.
    pub parameters: Map<String, Value>,
}
