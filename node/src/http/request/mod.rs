//! Request bodies as types: what a client may write, before anything is checked against a model.
//!
//! The types parse the bodies and describe them in `/openapi.json`, so the two cannot drift apart. They are "low": a
//! field is what the client wrote, within the bounds that its type names. `Common` and `Job` are the checked form.
//!
//! Parsing takes less than eight times the body's bytes, whatever they are: lists that hold more than numbers have a
//! bound, JSON of free form stays text (`RawValue`), and what nobody asks for is skipped.

mod chat;
mod completion;
mod form;
mod list;
mod message;
mod objects;
mod prompt;
mod scalar;
mod shared;
mod tokenize;
mod tool;
mod unserved;

pub use chat::ChatRequest;
pub use completion::CompletionRequest;
pub use form::{Choices, FormatKind, JsonSchemaFormat, ResponseFormat, StructuredOutputs};
pub use list::TokenIds;
pub use message::{Messages, RequestMessage, Role};
pub use prompt::Prompt;
pub use scalar::{Integer, Number};
pub use shared::{ServiceTier, Shared};
pub use tokenize::{DetokenizeRequest, TokenizeRequest};
pub use tool::{RequestCall, RequestFunction, RequestTool, ToolChoice, Tools};
pub use unserved::{Unserved, UnservedNumber, is_empty};

use super::error::ApiError;
use objects::ObjectsOnly;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::{Path, Segment};

/// Deeper than any honest body; parsers that recurse stop at the same depth.
const NESTING_MAX: usize = 128;

/// Reads a body. A complaint names the field; `null` counts as absent, unknown fields are skipped, a field that comes
/// twice is refused, and a list where an object is due.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if nesting(bytes) > NESTING_MAX {
        return Err(ApiError::malformed(format!(
            "the body is nested deeper than {NESTING_MAX} levels"
        )));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let request = serde_path_to_error::deserialize(ObjectsOnly(&mut deserializer))
        .map_err(|error| complaint(error.path(), error.inner(), bytes))?;
    deserializer.end().map_err(|error| syntax(&error))?;
    Ok(request)
}

/// The greatest number of brackets that are open at once. Of text that is no JSON, any number.
fn nesting(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _other => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _other => {}
        }
    }
}

fn complaint(path: &Path, error: &serde_json::Error, bytes: &[u8]) -> ApiError {
    if !error.is_data() {
        return match serde_json::from_slice::<IgnoredAny>(bytes) {
            Err(error) => syntax(&error),
            Ok(_) => ApiError::invalid(&param(path), format!("`{path}` {}", unread(&error.to_string()))),
        };
    }
    let words = error.to_string();
    let words = words
        .rsplit_once(" at line ")
        .map_or(words.as_str(), |(words, _place)| words);
    let place = path
        .iter()
        .filter(|segment| !matches!(segment, Segment::Unknown))
        .count();
    if let Some(field) = named(words, "missing field `") {
        return ApiError::invalid(&joined(path, field), format!("`{field}` is missing"));
    }
    if let Some(field) = named(words, "duplicate field `") {
        return ApiError::invalid(&joined(path, field), format!("`{field}` is given twice"));
    }
    if place == 0 {
        return ApiError::malformed("the body is not a JSON object");
    }
    let message = match words.rsplit_once(", expected ") {
        // Without the value at hand: that may be the user's text, of any length.
        Some((_found, expected)) => format!("`{path}` must be {expected}"),
        None => format!("`{path}` {words}"),
    };
    ApiError::invalid(&param(path), message)
}

/// What is wrong with a value that is skipped where nobody reads it, by serde_json's words.
fn unread(words: &str) -> &'static str {
    if words.starts_with("number out of range") {
        "is a number beyond all bounds"
    } else if words.contains("hex escape") {
        "has half of a character: \\ud800 to \\udfff stand for one in pairs only"
    } else if words.contains("unicode code point") {
        "has bytes that are not UTF-8"
    } else {
        "cannot be read"
    }
}

fn named<'a>(words: &'a str, opening: &str) -> Option<&'a str> {
    words.strip_prefix(opening)?.strip_suffix('`')
}

fn joined(path: &Path, field: &str) -> String {
    match path.iter().next() {
        None | Some(Segment::Unknown) => field.to_string(),
        Some(_) => format!("{path}.{field}"),
    }
}

/// The field that is to blame: the path without places inside lists and tables of plain values.
fn param(path: &Path) -> String {
    let mut param = path.to_string();
    while let Some(start) = last_place(&param) {
        param.truncate(start);
    }
    param
}

/// Where the last part of the path begins, if it is an index or a number.
fn last_place(path: &str) -> Option<usize> {
    if path.ends_with(']') {
        return path.rfind('[');
    }
    let (before, last) = path.rsplit_once('.')?;
    last.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(before.len())
}

fn syntax(error: &serde_json::Error) -> ApiError {
    if error.is_eof() && error.column() == 0 {
        return ApiError::malformed("the body is empty; it must be a JSON object");
    }
    ApiError::malformed(format!(
        "the body is not valid JSON (line {}, column {})",
        error.line(),
        error.column()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(nesting(br#"{"a": ["]]", "\"[[["], "b": {}}"#), 2);
    }

    #[test]
    fn a_body_nested_too_deep_is_refused_also_in_a_field_that_nobody_reads() {
        let body = |depth: usize| format!(r#"{{"x": {}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(parse::<CompletionRequest>(body(NESTING_MAX - 1).as_bytes()).is_ok());
        assert!(parse::<CompletionRequest>(body(NESTING_MAX).as_bytes()).is_err());
    }
}
