//! JSON of free form: schemas of tools, arguments of calls, variables of templates.

use serde::de::DeserializeOwned;

/// No honest request comes near it. Parsed, a value may take fifty times its text.
pub const VALUES_MAX: usize = 1 << 15;

/// Reads the texts of one kind that a request has, as many values as all of them together may have.
pub struct FreeJson {
    values_left: usize,
}

/// More than [`VALUES_MAX`].
#[derive(thiserror::Error, PartialEq, Eq, Debug)]
#[error("more than {VALUES_MAX} values of JSON")]
pub struct TooMany;

impl FreeJson {
    pub fn new() -> FreeJson {
        FreeJson {
            values_left: VALUES_MAX,
        }
    }

    /// `None` where the text is none of a `T`.
    pub fn read<T: DeserializeOwned>(&mut self, text: &str) -> Result<Option<T>, TooMany> {
        self.values_left = self.values_left.checked_sub(values(text)).ok_or(TooMany)?;
        Ok(serde_json::from_str(text).ok())
    }
}

/// Not less than there are, if it is JSON: each begins the text or stands behind one of these letters.
fn values(text: &str) -> usize {
    let (mut count, mut is_quoted, mut is_escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'[' | b'{' | b',' | b':' if !is_quoted => count += 1,
            _other => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn values_are_counted_and_strings_are_one() {
        assert_eq!(values("3"), 1);
        assert_eq!(values(r#"{"a,[": "\",[", "b": [1, 2]}"#), 1 + 6);
    }

    #[test]
    fn all_texts_together_have_a_bound() {
        let half = format!("[{}1]", "1,".repeat(VALUES_MAX / 2));
        let mut json = FreeJson::new();
        assert!(json.read::<Value>(&half).is_ok());
        assert_eq!(json.read::<Value>(&half), Err(TooMany));
        assert_eq!(json.read::<Value>("[1"), Ok(None));
        assert_eq!(json.read::<Value>("[1]"), Ok(Some(json!([1]))));
    }
}
