//! How many classes of letters a regex may have, in whichever language it stands. llguidance reads them without fuel.

use super::compiler::GrammarError;
use super::lark_regex;

/// `\p{L}` or `\s`: up to hundreds of ranges each.
const CLASSES_MAX: usize = 1024;
/// Where upper and lower case are the same, the counterparts of each letter in a class are looked up.
const FOLDED_CLASSES_MAX: usize = 64;
/// 8 ms for a class of all letters.
const FOLDED_WIDE_CLASSES_MAX: usize = 5;

pub fn check_regex(regex: &str) -> Result<(), GrammarError> {
    check(regex, has_flag_in_group(regex))
}

/// Regexes stand in it between slashes, and in schemas.
pub fn check_lark(text: &str) -> Result<(), GrammarError> {
    check(
        text,
        has_flag_in_group(text) || has_flag_behind_slash(text) || has_hidden_ascii(text),
    )
}

fn check(text: &str, may_ignore_case: bool) -> Result<(), GrammarError> {
    let pairs = text.as_bytes().windows(2);
    let classes = pairs.filter(|pair| pair[0] == b'\\' && b"wWdDsSpP".contains(&pair[1]));
    let classes = classes.count();
    if classes > CLASSES_MAX {
        return Err(GrammarError::new(format!(
            r"it has more than {CLASSES_MAX} classes such as \w or \p"
        )));
    }
    let is_folded_too_often =
        may_ignore_case && (classes > FOLDED_CLASSES_MAX || wide_classes(text) > FOLDED_WIDE_CLASSES_MAX);
    match is_folded_too_often {
        true => Err(GrammarError::new(format!(
            "where case is ignored, at most {FOLDED_CLASSES_MAX} classes such as \\w are taken, and \
             {FOLDED_WIDE_CLASSES_MAX} of more letters: \\p{{L}}, ranges beyond ASCII, one class within another"
        ))),
        false => Ok(()),
    }
}

/// `(?i)`, `(?x-i:`.
fn has_flag_in_group(text: &str) -> bool {
    let mut groups = text.split("(?").skip(1);
    groups.any(|group| {
        let flags = group
            .bytes()
            .take_while(|byte| byte.is_ascii_alphabetic() || *byte == b'-');
        flags.into_iter().any(|flag| flag == b'i')
    })
}

/// `/…/i`.
fn has_flag_behind_slash(lark: &str) -> bool {
    let regexes = lark_regex::find(lark);
    regexes.into_iter().any(|regex| lark[regex.flags].contains('i'))
}

/// In a schema `\u0028` is a parenthesis. Nobody writes it so but who hides it.
fn has_hidden_ascii(text: &str) -> bool {
    let mut escapes = text.split("\\u00").skip(1);
    escapes.any(|escape| escape.starts_with(|digit| ('2'..='7').contains(&digit)))
}

/// At least as many as there are: classes by property, and within brackets further classes, all letters but a few (`\W`),
/// what is cut, and ranges that end beyond ASCII.
fn wide_classes(text: &str) -> usize {
    let (mut depth, mut is_empty, mut count) = (0usize, false, 0);
    let mut letters = text.char_indices().peekable();
    while let Some((index, letter)) = letters.next() {
        let next = letters.peek().map_or(' ', |(_, next)| *next);
        let is_wide = match letter {
            '\\' => {
                matches!(next, 'p' | 'P') || depth > 0 && matches!(next, 'u' | 'U' | 'x' | 'W' | 'D' | 'S')
            }
            '[' => depth > 0 && !is_named(&text[index..]),
            '-' => depth > 0 && (next == '-' || is_blank(next) || !next.is_ascii()),
            '&' | '~' => depth > 0 && next == letter,
            _other => false,
        };
        count += usize::from(is_wide);
        match letter {
            '\\' => {
                letters.next();
                is_empty = false;
            }
            '[' => (depth, is_empty) = (depth + 1, true),
            // What comes first is a letter, also behind white space, which may count for nothing.
            ']' if !is_empty => depth = depth.saturating_sub(1),
            '^' => {}
            blank if is_blank(blank) => {}
            // A bracket behind it may be part of a comment.
            '#' if depth > 0 => depth += 1,
            _other => is_empty = false,
        }
    }
    count
}

/// `[:alpha:]`, of ASCII.
fn is_named(text: &str) -> bool {
    let name = text.strip_prefix("[:").unwrap_or("");
    name.trim_start_matches(|letter: char| letter.is_ascii_lowercase())
        .starts_with(":]")
}

fn is_blank(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDED: [&str; 11] = [
        r"(?i)\p{L}",
        "(?xi:[a&&b])",
        "(?i)[x[y]]",
        "(?i)[[^a]]",
        "(?i)[[:^alpha:]]",
        "(?i)[][^a]]",
        "(?i)[^][^a]]",
        "(?i)[ ][^a]]",
        "(?i)[a-漢]",
        r"(?i)[\W]",
        r"(?i)[^x\S]",
    ];

    #[test]
    fn classes_of_a_regex_are_bounded_more_narrowly_where_case_is_ignored() {
        assert!(check_regex(&r"\w".repeat(CLASSES_MAX)).is_ok());
        assert!(check_regex(&r"\w".repeat(CLASSES_MAX + 1)).is_err());
        for folded in FOLDED {
            assert!(
                check_regex(&folded.repeat(FOLDED_WIDE_CLASSES_MAX)).is_ok(),
                "{folded}"
            );
            assert!(
                check_regex(&folded.repeat(FOLDED_WIDE_CLASSES_MAX + 1)).is_err(),
                "{folded}"
            );
            assert!(
                check_regex(&folded.replace('i', "").repeat(100)).is_ok(),
                "{folded}"
            );
        }
        assert!(check_regex(&"(?x)(?i)[#][^a]]".repeat(FOLDED_WIDE_CLASSES_MAX + 1)).is_err());
        let people_write = |times| format!("(?i)<[^>]*>{}", r"[[:alpha:]_-]+|[\w.+-]+@[\w.-]+".repeat(times));
        assert!(check_regex(&people_write(32)).is_ok());
        assert!(check_regex(&people_write(33)).is_err());
    }

    #[test]
    fn regexes_within_lark_are_bounded_too_and_texts_of_schemas_are_none() {
        let wide = r"[\x00-\u{10ffff}]".repeat(FOLDED_WIDE_CLASSES_MAX + 1);
        assert!(check_lark(&format!("start: /{wide}/")).is_ok());
        assert!(check_lark(&format!("start: /{wide}/is")).is_err());
        assert!(check_lark(&format!("start: \"/\" /\"{wide}/is")).is_err());
        assert!(check_lark(&format!("start: </s> /{wide}/i")).is_err());
        assert!(check_lark(&format!("start: \"a\"i \"\\\\\" /{wide}/")).is_ok());
        assert!(check_lark(&format!("start: \"\\\\\" /{wide}/i")).is_err());
        assert!(check_lark(&format!("start: \"\\\"/\" // \"/\n /\\/{wide}/is")).is_err());
        assert!(check_lark(&format!("start: %json {{\"pattern\": \"(?i){wide}\"}}")).is_err());
        assert!(check_lark(&format!("start: %json {{\"pattern\": \"(\\u003fi){wide}\"}}")).is_err());
        let ways = "[[1, 2], [\"a -- b\", \"\\u00e9\"]]";
        assert!(
            check_lark(&format!(
                "start: %json {{\"d\": \"/a/items\", \"anyOf\": {}}}",
                ways.repeat(9)
            ))
            .is_ok()
        );
    }
}
