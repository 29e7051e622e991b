//! Yes or no, as people write it in the environment.

/// What [`parse`] takes.
const WORDS: &str = "true, false, 1, 0, yes, no, on or off";

/// In any case of letters. Everything else is an error: taken for either, a slip of the pen could open a node.
pub fn parse(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _other => Err(format!("write {WORDS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_are_known_by_their_usual_names_and_nothing_else_is() {
        for (text, flag) in [
            ("true", true),
            ("True", true),
            ("1", true),
            ("yes", true),
            ("on", true),
            ("false", false),
            ("0", false),
            ("no", false),
            ("OFF", false),
        ] {
            assert_eq!(parse(text), Ok(flag), "{text}");
        }
        for text in ["", " ", "nope", "maybe", "y", "2", "disabled"] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(WORDS), "{error}");
        }
    }
}
