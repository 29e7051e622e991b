//! What llguidance says of grammars that take more than its limits let through, in our words: it speaks of its own
//! options, and writes out what it has made of the grammar.

/// How its messages begin, or what they say behind a place.
const THEIRS: [&str; 9] = [
    "lexer precomputation failed",
    "Unable to determine if regex is empty",
    "initial lexer configuration (grammar) too big",
    "grammar size (number of symbols) too big",
    "schema too large",
    "too many expressions constructed",
    "too many states",
    "fuel exhausted",
    "maximum relevance check fuel",
];

pub const OURS: &str =
    "it is too complex to compile within the limit; make it simpler: fewer alternatives, smaller repeats";

/// `message` of the compiler.
pub fn in_our_words(message: String) -> String {
    match THEIRS.iter().any(|theirs| message.contains(theirs)) {
        true => OURS.to_owned(),
        false => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::tests::{refusal, schema};
    use serde_json::json;

    #[test]
    fn a_pattern_and_a_length_that_are_too_much_together_are_too_complex() {
        let repeated = json!({"type": "string", "pattern": "^a+b?c*$", "minLength": 10_000});
        assert_eq!(refusal(&schema(repeated)), OURS);
    }

    /// It takes the vocabulary of a real model to come to it.
    #[test]
    fn what_the_compiler_says_of_its_options_is_told_in_our_words() {
        let theirs = "lexer precomputation failed; either increase limits.initial_lexer_fuel or disable \
            limits.precompute_large_lexemes";
        assert_eq!(in_our_words(theirs.to_owned()), OURS);
        let other = "unexpected token at line 1".to_owned();
        assert_eq!(in_our_words(other.clone()), other);
    }
}
