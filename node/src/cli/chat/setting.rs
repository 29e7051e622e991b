//! Fields of a request that a person may set, and what they may be set to.

use serde_json::{Value, json};

pub struct Setting {
    pub name: &'static str,
    kind: Kind,
}

enum Kind {
    Number { min: f64, max: f64 },
    Integer { min: i64 },
    Seed,
    Texts,
}

/// By name.
pub const SETTINGS: [Setting; 10] = [
    Setting::number("frequency_penalty", -2.0, 2.0),
    Setting::integer("max_tokens", 1),
    Setting::number("min_p", 0.0, 1.0),
    Setting::number("presence_penalty", -2.0, 2.0),
    Setting::number("repetition_penalty", 0.01, 100.0),
    Setting {
        name: "seed",
        kind: Kind::Seed,
    },
    Setting {
        name: "stop",
        kind: Kind::Texts,
    },
    Setting::number("temperature", 0.0, 2.0),
    Setting::integer("top_k", -1),
    // 0 keeps no token at all.
    Setting::number("top_p", 0.000_001, 1.0),
];

impl Setting {
    const fn number(name: &'static str, min: f64, max: f64) -> Setting {
        let kind = Kind::Number { min, max };
        Setting { name, kind }
    }

    const fn integer(name: &'static str, min: i64) -> Setting {
        let kind = Kind::Integer { min };
        Setting { name, kind }
    }

    /// # Errors
    /// What can be set.
    pub fn named(name: &str) -> Result<&'static Setting, String> {
        let known = SETTINGS.iter().find(|known| known.name == name);
        known.ok_or_else(|| {
            let names: Vec<&str> = SETTINGS.iter().map(|known| known.name).collect();
            format!("{name} cannot be set; these can: {}", names.join(", "))
        })
    }

    /// What was typed as the value that is sent.
    ///
    /// # Errors
    /// What the setting may be.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let typed = serde_json::from_str(text).ok();
        let value = match self.kind {
            Kind::Number { .. } | Kind::Integer { .. } | Kind::Seed => typed.unwrap_or_else(|| json!(text)),
            // A word needs no quotes, even where it looks like something else.
            Kind::Texts => typed
                .filter(|value: &Value| value.is_string() || value.is_array())
                .unwrap_or_else(|| json!(text)),
        };
        self.check(&value).map(|()| value)
    }

    /// # Errors
    /// What the setting may be.
    fn check(&self, value: &Value) -> Result<(), String> {
        let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        let may_be = match self.kind {
            Kind::Number { min, max } => value.as_f64().is_some_and(|number| (min..=max).contains(&number)),
            Kind::Integer { min } => {
                let most = i64::from(u32::MAX);
                value
                    .as_i64()
                    .is_some_and(|number| (min..=most).contains(&number))
            }
            Kind::Seed => value.is_i64() || value.is_u64(),
            Kind::Texts => match value.as_array() {
                Some(texts) => texts.iter().all(is_text),
                None => is_text(value),
            },
        };
        match may_be {
            true => Ok(()),
            false => Err(format!("{} is {}, not {value}", self.name, self.in_words())),
        }
    }

    fn in_words(&self) -> String {
        match self.kind {
            Kind::Number { min, max } => format!("a number from {min} to {max}"),
            Kind::Integer { min } => format!("a whole number from {min} on"),
            Kind::Seed => "a whole number of at most 64 bits".to_owned(),
            Kind::Texts => "a word, or a list as in [\"a\", \"b\"]".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_server_would_take_is_refused_with_what_it_would() {
        for (name, text, words) in [
            (
                "temperature",
                "hot",
                "temperature is a number from 0 to 2, not \"hot\"",
            ),
            ("temperature", "9", "temperature is a number from 0 to 2, not 9"),
            ("top_p", "0", "to 1, not 0"),
            ("top_k", "-2", "a whole number from -1 on"),
            ("top_k", "1.5", "a whole number from -1 on"),
            ("max_tokens", "0", "a whole number from 1 on"),
            ("max_tokens", "5000000000", "a whole number from 1 on"),
            ("presence_penalty", "-3", "from -2 to 2"),
            ("repetition_penalty", "0", "from 0.01 to 100"),
            ("min_p", "true", "from 0 to 1"),
            ("seed", "0.5", "64 bits"),
            ("stop", "[1]", "a word"),
        ] {
            let error = Setting::named(name).and_then(|setting| setting.read(text));
            let error = error.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_may_be_is_read_as_it_is_meant() {
        for (name, text, value) in [
            ("temperature", "0", json!(0)),
            ("temperature", "2.0", json!(2.0)),
            ("seed", "-1", json!(-1)),
            ("seed", "18446744073709551615", json!(u64::MAX)),
            ("top_k", "-1", json!(-1)),
            ("stop", "5", json!("5")),
            ("stop", "\"two words\"", json!("two words")),
            ("stop", "[\"a\"]", json!(["a"])),
        ] {
            let read = Setting::named(name).and_then(|setting| setting.read(text));
            assert_eq!(read, Ok(value), "{name} {text}");
        }
    }
}
