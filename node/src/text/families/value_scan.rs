//! Where a JSON value ends, letter by letter.

/// Follows one JSON value from its first letter on. It looks for the end, not for faults: what it lets pass need not be
/// valid JSON, but valid JSON always passes.
pub enum ValueScan {
    Text(Text),
    /// An object or a list, `depth` brackets deep.
    Nested {
        depth: u32,
        text: Option<Text>,
    },
    /// A number, `true`, `false` or `null`.
    Bare,
}

/// Inside a string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Text {
    Plain,
    /// Just after a backslash.
    Escaped,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scanned {
    /// The letter belongs to the value, and more must come.
    Inside,
    /// The letter is the value's last.
    Last,
    /// The value ended before this letter.
    Before,
    /// No JSON value has this letter here.
    Broken,
}

impl ValueScan {
    /// `None`: no value begins with `first`.
    pub fn begin(first: char) -> Option<ValueScan> {
        match first {
            '"' => Some(ValueScan::Text(Text::Plain)),
            '{' | '[' => Some(ValueScan::Nested { depth: 1, text: None }),
            '-' => Some(ValueScan::Bare),
            letter if letter.is_ascii_alphanumeric() => Some(ValueScan::Bare),
            _other => None,
        }
    }

    /// Takes the letter after those so far.
    pub fn push(&mut self, letter: char) -> Scanned {
        match self {
            ValueScan::Text(text) => match text.push(letter) {
                Some(next) => {
                    *text = next;
                    Scanned::Inside
                }
                None => Scanned::Last,
            },
            ValueScan::Nested {
                text: Some(inner), ..
            } if letter != '"' || *inner == Text::Escaped => {
                *inner = inner.push(letter).unwrap_or(Text::Plain);
                Scanned::Inside
            }
            ValueScan::Nested { depth, text } => nested(depth, text, letter),
            ValueScan::Bare => bare(letter),
        }
    }
}

impl Text {
    /// `None`: the letter is the closing quote.
    fn push(self, letter: char) -> Option<Text> {
        match (self, letter) {
            (Text::Escaped, _any) => Some(Text::Plain),
            (Text::Plain, '\\') => Some(Text::Escaped),
            (Text::Plain, '"') => None,
            (Text::Plain, _other) => Some(Text::Plain),
        }
    }
}

/// A letter outside the strings of an object or list, or a quote around one.
fn nested(depth: &mut u32, text: &mut Option<Text>, letter: char) -> Scanned {
    match letter {
        '"' => {
            *text = match text {
                Some(_) => None,
                None => Some(Text::Plain),
            };
        }
        '{' | '[' => *depth += 1,
        '}' | ']' if *depth == 1 => return Scanned::Last,
        '}' | ']' => *depth -= 1,
        ',' | ':' | '+' | '-' | '.' | ' ' | '\n' | '\r' | '\t' => {}
        letter if letter.is_ascii_alphanumeric() => {}
        _other => return Scanned::Broken,
    }
    Scanned::Inside
}

fn bare(letter: char) -> Scanned {
    match letter {
        ',' | '}' | ']' | ' ' | '\n' | '\r' | '\t' => Scanned::Before,
        '+' | '-' | '.' => Scanned::Inside,
        letter if letter.is_ascii_alphanumeric() => Scanned::Inside,
        _other => Scanned::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// How many letters the value at the start of `text` has.
    fn letters(text: &str) -> Option<usize> {
        let mut rest = text.chars();
        let mut scan = ValueScan::begin(rest.next()?)?;
        for (count, letter) in rest.enumerate() {
            match scan.push(letter) {
                Scanned::Inside => {}
                Scanned::Last => return Some(count + 2),
                Scanned::Before => return Some(count + 1),
                Scanned::Broken => return None,
            }
        }
        None
    }

    #[test]
    fn brackets_and_quotes_in_strings_end_nothing() {
        assert_eq!(letters(r#"{"a\"}": ["]", "\\"]} x"#), Some(21));
        assert_eq!(letters(r#""a\\" b"#), Some(5));
        assert_eq!(letters("-1.5e3, 2"), Some(6));
    }

    #[test]
    fn what_cannot_be_json_is_broken() {
        assert_eq!(letters(r#"{"a": 1</end>"#), None);
        assert_eq!(letters("<"), None);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a\"\\\\{}é\\[\\]\n]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a\"{é]{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_end_of_any_value_is_found(value in values(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            prop_assert_eq!(letters(&format!("{text} ,")), Some(text.chars().count()));
        }
    }
}
