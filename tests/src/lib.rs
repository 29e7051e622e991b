//! What the end-to-end tests share: the `cluster` binary, a model to serve, a running node, a client.
//!
//! Every test starts the real binary as a person would and talks to it over HTTP.

mod binary;
mod client;
mod crowd;
mod environment;
mod fleet;
mod node;
mod suite;
mod weather;

pub use binary::{cluster_binary, model_path, run_to_end, store};
pub use client::{Answer, Client, Stream};
pub use crowd::{Crowd, CrowdSize};
pub use environment::{TOKENIZER_NAME, made_once, python_programs, suites, tokenizer_folder};
pub use fleet::{Fleet, Holds, until};
pub use node::{Node, NodeOptions, TempFolder, signal};
pub use suite::Suite;
pub use weather::Weather;

use serde_json::Value;

/// The name under which tests serve the model.
pub const MODEL: &str = "smollm2-135m";

/// A file of `tests/goldens/`.
///
/// # Panics
/// When it is missing or no JSON: the checkout is broken then.
pub fn golden(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("goldens")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A JSON array of token ids.
pub fn ids_of(value: &Value) -> Vec<u32> {
    let items = value
        .as_array()
        .unwrap_or_else(|| panic!("not a list of ids: {value}"));
    items
        .iter()
        .map(|id| id.as_u64().expect("an id") as u32)
        .collect()
}

/// A JSON array of numbers; `null` becomes `None`.
pub fn numbers_of(value: &Value) -> Vec<Option<f64>> {
    let items = value
        .as_array()
        .unwrap_or_else(|| panic!("not a list of numbers: {value}"));
    items.iter().map(Value::as_f64).collect()
}
