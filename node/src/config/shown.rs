//! Settings as `--print-config` shows them.

use super::high::Origin;
use serde_json::{Value, json};
use std::fmt::Display;

/// A setting by the name that it has in the file, its value in words, and where that came from.
pub struct Shown {
    pub name: &'static str,
    value: String,
    origin: Origin,
}

impl Shown {
    pub fn new(name: &'static str, value: impl Display, origin: Origin) -> Shown {
        Shown {
            name,
            value: value.to_string(),
            origin,
        }
    }

    /// For people.
    pub fn line(&self) -> String {
        format!("{:<27} {}  ({})", self.name, self.value, self.origin)
    }
}

/// For programs: an object from names to `value` and `origin`.
pub fn json(settings: &[Shown]) -> Value {
    let settings = settings.iter().map(|setting| {
        let shown = json!({"value": setting.value, "origin": setting.origin.to_string()});
        (setting.name.to_owned(), shown)
    });
    Value::Object(settings.collect())
}
