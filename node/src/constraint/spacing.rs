//! White space between the tokens of JSON. Models get lost in it, so there is little of it, or none.

use super::compiler::GrammarError;
use serde_json::{Map, Value, json};

/// Where llguidance reads options, which are ours to set.
const OPTIONS: &str = "x-guidance";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spacing {
    /// What people write: a space, or a line break with the indentation after it.
    Readable,
    /// None at all.
    Compact,
    /// One space behind commas and colons, as models are trained to write the arguments of calls.
    OfCalls,
}

impl Spacing {
    /// As a member at the root of a schema.
    pub fn set(self, schema: &mut Value) {
        schema[OPTIONS] = self.options();
    }

    /// Takes what `compact` has written out of a schema. Whoever writes the same asks for the same.
    pub fn take(schema: &mut Map<String, Value>) -> Result<Spacing, GrammarError> {
        match schema.shift_remove(OPTIONS) {
            None => Ok(Spacing::Readable),
            Some(options) if options == asked_compact() => Ok(Spacing::Compact),
            Some(_) => Err(GrammarError::new(format!("`{OPTIONS}` is not supported"))),
        }
    }

    /// A name that is not in `properties` could be spelled like one that is, were `\uXXXX` allowed in it.
    fn options(self) -> Value {
        let mut options = json!({"json_allowed_escapes": "nrbtf\\\""});
        match self {
            Spacing::Readable => options["whitespace_pattern"] = json!(r"\x20|\x0A[\x20\x09]{0,20}"),
            Spacing::Compact => options["whitespace_flexible"] = json!(false),
            Spacing::OfCalls => {
                options["whitespace_flexible"] = json!(false);
                options["item_separator"] = json!(", ");
                options["key_separator"] = json!(": ");
            }
        }
        options
    }
}

/// In llguidance's own words, so that the text of a schema says it wherever it goes.
fn asked_compact() -> Value {
    json!({"whitespace_flexible": false})
}

/// The text of a schema whose JSON has no white space. What is no schema is left as it is.
pub fn compact(schema: &str) -> String {
    let schema = match schema.trim() {
        "true" => "{}",
        other => other,
    };
    let Some(members) = schema.strip_prefix('{') else {
        return schema.to_owned();
    };
    let comma = match members.trim_start().starts_with('}') {
        true => "",
        false => ",",
    };
    format!("{{\"{OPTIONS}\":{}{comma}{members}", asked_compact())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<(Spacing, Value), GrammarError> {
        let Ok(Value::Object(mut schema)) = serde_json::from_str(text) else {
            panic!("no object: {text}");
        };
        let spacing = Spacing::take(&mut schema)?;
        Ok((spacing, Value::Object(schema)))
    }

    #[test]
    fn a_schema_says_by_itself_that_it_is_compact_and_nothing_else_of_the_compilers_options() {
        for schema in ["{}", " { } ", "{\"type\": \"null\", \"a\": {}}"] {
            let plain: Value = serde_json::from_str(schema).unwrap();
            assert_eq!(taken(schema), Ok((Spacing::Readable, plain.clone())));
            assert_eq!(taken(&compact(schema)), Ok((Spacing::Compact, plain)), "{schema}");
        }
        assert!(taken(&compact("{\"x-guidance\": {\"lenient\": true}}")).is_err());
        assert!(taken("{\"x-guidance\": {}}").is_err());
        assert_eq!((compact(" true"), compact("[")), (compact("{}"), "[".to_owned()));
    }
}
