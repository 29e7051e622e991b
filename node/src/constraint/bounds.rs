//! What is refused before a compiler sees it, because it would only find out expensively.

use super::compiler::GrammarError;
use super::{classes, cost, lark_regex, number};
use proto::request::Grammar;
use serde_json::Value;

/// All texts of a grammar together.
pub const GRAMMAR_BYTES_MAX: usize = 256 << 10;
pub const CHOICES_MAX: usize = 4096;
/// Of a Lark grammar. Time grows with the square of what follows one another in a rule, and of the number of rules.
const LINES_MAX: usize = 4096;
const LINE_WORDS_MAX: usize = 1024;
/// Of a rule that is refused: enough to find it.
const RULE_CHARS_SHOWN: usize = 60;
/// Parentheses, brackets and braces inside one another.
const DEPTH_MAX: usize = 128;
/// In one regex: `?`, `*`, `+` and `{`. What may be left out one after the other is compiled without fuel, in a time and a memory
/// that grow with the square of it: 0.07 s for so many.
const REPEATS_MAX: usize = 2000;

pub fn check(grammar: &Grammar) -> Result<(), GrammarError> {
    let bytes = bytes(grammar);
    if bytes > GRAMMAR_BYTES_MAX {
        return Err(GrammarError::new(format!(
            "it has {bytes} bytes; at most {GRAMMAR_BYTES_MAX} are taken"
        )));
    }
    match grammar {
        Grammar::JsonObject => Ok(()),
        Grammar::JsonSchema(text) => check_depth(text),
        Grammar::Regex(text) => {
            check_depth(text)?;
            check_repeats(text)?;
            classes::check_regex(text)
        }
        Grammar::Lark(text) => {
            refuse_gbnf(text)?;
            check_depth(text)?;
            check_lines(text)?;
            let regexes = lark_regex::find(text);
            regexes
                .into_iter()
                .try_for_each(|regex| check_repeats(&text[regex.inside]))?;
            schemas_within(text).try_for_each(|schema| {
                number::check_as_it_is(&schema)?;
                cost::check(&schema)
            })?;
            classes::check_lark(text)
        }
        Grammar::Choice(choices) if choices.is_empty() => Err(GrammarError::new("there is no choice in it")),
        Grammar::Choice(choices) if choices.len() > CHOICES_MAX => Err(GrammarError::new(format!(
            "it has {} choices; at most {CHOICES_MAX} are taken",
            choices.len()
        ))),
        Grammar::Choice(_) => Ok(()),
    }
}

/// Of its texts.
pub fn bytes(grammar: &Grammar) -> usize {
    match grammar {
        Grammar::JsonObject => 0,
        Grammar::JsonSchema(text) | Grammar::Regex(text) | Grammar::Lark(text) => text.len(),
        Grammar::Choice(choices) => choices.iter().map(String::len).sum(),
    }
}

/// Compilers recurse. Brackets in literals count as well where the languages differ in what a literal is; nobody writes
/// so many of them.
fn check_depth(text: &str) -> Result<(), GrammarError> {
    let (mut depth, mut is_quoted, mut is_escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'(' | b'[' | b'{' if !is_quoted => depth += 1,
            b')' | b']' | b'}' if !is_quoted => depth = depth.saturating_sub(1),
            _other => {}
        }
        if depth > DEPTH_MAX {
            return Err(GrammarError::new(format!(
                "it is nested deeper than {DEPTH_MAX} levels"
            )));
        }
    }
    Ok(())
}

fn check_repeats(regex: &str) -> Result<(), GrammarError> {
    let repeats = regex.bytes().filter(|byte| b"?*+{".contains(byte)).count();
    match repeats > REPEATS_MAX {
        true => Err(GrammarError::new(format!(
            "a regex of it repeats in more than {REPEATS_MAX} places (`?`, `*`, `+`, `{{`)"
        ))),
        false => Ok(()),
    }
}

/// The schemas of `%json` in a text of Lark. What is none the compiler says.
fn schemas_within(lark: &str) -> impl Iterator<Item = Value> {
    // Each to its own end: the same letters may stand in a string of it.
    let texts = lark
        .match_indices("%json")
        .map(|(at, mark)| &lark[at + mark.len()..]);
    texts.filter_map(|text| serde_json::Deserializer::from_str(text).into_iter().next()?.ok())
}

/// Others take that language in the same field, and the compiler would speak of single letters.
fn refuse_gbnf(text: &str) -> Result<(), GrammarError> {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
    let is_rule = |line: &str| {
        let behind_name = line.trim_start().trim_start_matches(is_letter);
        behind_name.trim_start().starts_with("::=")
    };
    match text.lines().find(|line| is_rule(line)) {
        Some(rule) => {
            let rule: String = rule.trim().chars().take(RULE_CHARS_SHOWN).collect();
            Err(GrammarError::new(format!(
                "`{rule}` is a rule of GBNF, and grammars are taken in llguidance's dialect of Lark: a rule is \
                 `name: \"a\" | other`, and the whole answer is the rule `start`"
            )))
        }
        None => Ok(()),
    }
}

fn check_lines(text: &str) -> Result<(), GrammarError> {
    if text.lines().count() > LINES_MAX {
        return Err(GrammarError::new(format!("it has more than {LINES_MAX} lines")));
    }
    match text.lines().all(|line| words(line) <= LINE_WORDS_MAX) {
        true => Ok(()),
        false => Err(GrammarError::new(format!(
            "a line of it has more than {LINE_WORDS_MAX} words"
        ))),
    }
}

/// Outside of quotes.
fn words(line: &str) -> usize {
    let outside = line.split('"').step_by(2);
    outside.map(|part| part.split_ascii_whitespace().count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_and_too_deep_is_refused_and_what_is_quoted_does_not_count() {
        let lark = |text: String| check(&Grammar::Lark(text));
        assert!(lark("(".repeat(DEPTH_MAX + 1)).is_err());
        assert!(lark("()".repeat(1000)).is_ok());
        assert!(lark(format!("start: \"{}\"", "(".repeat(1000))).is_ok());
        assert!(lark(format!("start: /{}/", "\\(".repeat(1000))).is_ok());
        assert!(lark("a".repeat(GRAMMAR_BYTES_MAX + 1)).is_err());
        assert!(lark("a ".repeat(LINE_WORDS_MAX + 1)).is_err());
        assert!(lark(format!("start: \"{}\"", "a ".repeat(LINE_WORDS_MAX + 1))).is_ok());
        assert!(lark("a\n".repeat(LINES_MAX + 1)).is_err());
        assert!(lark("start: \"root ::= 1\"".to_owned()).is_ok());
        assert!(lark("# as in GBNF\n root-1 ::= \"a\"".to_owned()).is_err());
        assert!(check(&Grammar::Choice(Vec::new())).is_err());
        assert!(check(&Grammar::Choice(vec![String::new(); CHOICES_MAX + 1])).is_err());
    }
}
