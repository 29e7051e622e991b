//! A tool, as a request offers it.

use serde_json::{Map, Value};

/// A function that the model may call.
#[derive(Clone, PartialEq, Debug)]
pub struct Tool {
    pub name: String,
    /// The JSON schema of its arguments.
    pub parameters: Map<String, Value>,
}
