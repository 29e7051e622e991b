//! Cuts text into the words that merging works on, as the model's pre-tokenizer does, in one pass without backtracking.
//!
//! Each rule is a regular expression of the model's family, followed by hand, because engines for them backtrack: a
//! hostile text would cost more than its length.

use regex_syntax::hir::{Class, HirKind};
use std::sync::LazyLock;

/// How a family cuts text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WordRule {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// The same, with each numeric character cut out first, as a text of its own.
    Gpt2SingleDigits,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3,
}

/// What the expressions tell characters apart by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Letter,
    Number,
    Space,
    Other,
}

const LLAMA3_DIGITS: usize = 3;

/// The words of `text`, in order, without a gap; none is empty.
pub fn words(rule: WordRule, text: &str) -> Words<'_> {
    Words {
        rule,
        text,
        at: 0,
        end: 0,
    }
}

pub struct Words<'a> {
    rule: WordRule,
    text: &'a str,
    at: usize,
    /// Of the part that the expression sees: from `at` to here.
    end: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.at == self.end {
            self.end += part_bytes(self.rule, &self.text[self.at..]);
        }
        let rest = &self.text[self.at..self.end];
        if rest.is_empty() {
            return None;
        }
        let bytes = match self.rule {
            WordRule::Gpt2 | WordRule::Gpt2SingleDigits => gpt2_word(rest),
            WordRule::Llama3 => llama3_word(rest),
        };
        self.at += bytes;
        Some(&rest[..bytes])
    }
}

/// How much of `text` is cut into words by itself, as if nothing followed.
fn part_bytes(rule: WordRule, text: &str) -> usize {
    match (rule, text.chars().next()) {
        (WordRule::Gpt2SingleDigits, Some(first)) if first.is_numeric() => first.len_utf8(),
        (WordRule::Gpt2SingleDigits, _) => text.find(char::is_numeric).unwrap_or(text.len()),
        (WordRule::Gpt2 | WordRule::Llama3, _) => text.len(),
    }
}

/// The length in bytes of the first word of `text`, which is not empty.
fn gpt2_word(text: &str) -> usize {
    if let Some(bytes) = contraction(text, |letter| letter) {
        return bytes;
    }
    let space = usize::from(text.starts_with(' '));
    match kind_at(text, space) {
        Some(kind @ (Kind::Letter | Kind::Number | Kind::Other)) => space + run(&text[space..], kind),
        Some(Kind::Space) | None => spaces(text),
    }
}

fn llama3_word(text: &str) -> usize {
    if let Some(bytes) = contraction(text, folded) {
        return bytes;
    }
    let mut letters = text.chars();
    let first = letters.next().expect("the text is not empty");
    let second = letters.next().map(kind);
    let first_bytes = first.len_utf8();
    match kind(first) {
        Kind::Letter => run(text, Kind::Letter),
        Kind::Number => numbers(text),
        Kind::Space | Kind::Other if second == Some(Kind::Letter) && !is_line_end(first) => {
            first_bytes + run(&text[first_bytes..], Kind::Letter)
        }
        Kind::Other => others(text),
        Kind::Space if first == ' ' && second == Some(Kind::Other) => 1 + others(&text[1..]),
        Kind::Space => lines(text).unwrap_or_else(|| spaces(text)),
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, each letter looked at through `fold`.
fn contraction(text: &str, fold: fn(char) -> char) -> Option<usize> {
    let suffix = text.strip_prefix('\'')?;
    let mut letters = suffix.chars();
    let first = letters.next()?;
    let second = letters.next();
    let letters = match (fold(first), second.map(fold)) {
        ('s' | 't' | 'm' | 'd', _) => first.len_utf8(),
        ('r' | 'v', Some('e')) | ('l', Some('l')) => first.len_utf8() + second.map_or(0, char::len_utf8),
        _no_contraction => return None,
    };
    Some(1 + letters)
}

/// Simple case folding, as far as contractions have letters; the long s folds to s.
fn folded(letter: char) -> char {
    match letter {
        'ſ' => 's',
        other => other.to_ascii_lowercase(),
    }
}

/// `\p{N}{1,3}`
fn numbers(text: &str) -> usize {
    let three = text.char_indices().nth(LLAMA3_DIGITS);
    let end = three.map_or(text.len(), |(offset, _)| offset);
    run(&text[..end], Kind::Number)
}

/// `[^\s\p{L}\p{N}]+[\r\n]*`
fn others(text: &str) -> usize {
    let end = run(text, Kind::Other);
    let rest = &text[end..];
    end + rest.len() - rest.trim_start_matches(is_line_end).len()
}

/// `\s*[\r\n]+`: to the last line end of the white space that `text` begins with.
fn lines(text: &str) -> Option<usize> {
    let space = &text[..run(text, Kind::Space)];
    space.rfind(is_line_end).map(|last| last + 1)
}

/// `\s+(?!\S)|\s+`: the white space that `text` begins with, less its last character when a word follows and there are
/// others.
fn spaces(text: &str) -> usize {
    let end = run(text, Kind::Space);
    if end == text.len() {
        return end;
    }
    let last = text[..end].char_indices().next_back();
    last.map_or(end, |(offset, _)| if offset == 0 { end } else { offset })
}

/// The length of the characters of one kind that `text` begins with.
fn run(text: &str, wanted: Kind) -> usize {
    text.find(|letter| kind(letter) != wanted).unwrap_or(text.len())
}

fn kind_at(text: &str, offset: usize) -> Option<Kind> {
    text[offset..].chars().next().map(kind)
}

fn is_line_end(letter: char) -> bool {
    matches!(letter, '\r' | '\n')
}

fn kind(letter: char) -> Kind {
    match letter {
        'a'..='z' | 'A'..='Z' => Kind::Letter,
        '0'..='9' => Kind::Number,
        letter if letter.is_whitespace() => Kind::Space,
        letter if letter.is_ascii() => Kind::Other,
        letter if LETTERS.contains(letter) => Kind::Letter,
        letter if NUMBERS.contains(letter) => Kind::Number,
        _other => Kind::Other,
    }
}

/// A set of characters, one bit each.
struct CharSet(Vec<u64>);

static LETTERS: LazyLock<CharSet> = LazyLock::new(|| CharSet::of(r"\p{L}"));
static NUMBERS: LazyLock<CharSet> = LazyLock::new(|| CharSet::of(r"\p{N}"));

impl CharSet {
    /// Of a Unicode class, by the tables that regular expressions use.
    fn of(class: &str) -> CharSet {
        let parsed = regex_syntax::parse(class).expect("the class is a constant of ours");
        let HirKind::Class(Class::Unicode(ranges)) = parsed.into_kind() else {
            unreachable!("a Unicode class is a set of ranges");
        };
        let mut bits = vec![0; (char::MAX as usize + 1) / 64];
        for code in ranges
            .iter()
            .flat_map(|range| range.start() as usize..=range.end() as usize)
        {
            bits[code / 64] |= 1 << (code % 64);
        }
        CharSet(bits)
    }

    fn contains(&self, letter: char) -> bool {
        let code = letter as usize;
        self.0[code / 64] >> (code % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::utils::SysRegex;

    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    fn cut(rule: WordRule, text: &str) -> Vec<&str> {
        words(rule, text).collect()
    }

    fn cut_by(expression: &SysRegex, text: &str) -> Vec<String> {
        let found = expression.find_iter(text);
        found.map(|(start, end)| text[start..end].to_owned()).collect()
    }

    #[test]
    fn each_numeric_character_is_cut_out_before_the_rule_sees_the_text() {
        let text = "  12 apples½  x";
        assert_eq!(
            cut(WordRule::Gpt2SingleDigits, text),
            ["  ", "1", "2", " apples", "½", " ", " x"]
        );
        assert_eq!(cut(WordRule::Gpt2, text), [" ", " 12", " apples", "½", " ", " x"]);
    }

    fn texts() -> impl Strategy<Value = String> {
        let letter = prop_oneof![
            4 => prop::sample::select(" '\r\n\tsStTreEvVlLmMdD1½漢é.!-\u{a0}\u{2028}\u{85}ſ\u{301}🙂Ⅷ".chars().collect::<Vec<_>>()),
            1 => any::<char>(),
        ];
        prop::collection::vec(letter, 0..40).prop_map(|letters| letters.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn words_are_those_of_the_expressions(text in texts()) {
            static EXPRESSIONS: LazyLock<[(WordRule, SysRegex); 2]> = LazyLock::new(|| {
                let compiled = |expression| SysRegex::new(expression).unwrap();
                [(WordRule::Gpt2, compiled(GPT2)), (WordRule::Llama3, compiled(LLAMA3))]
            });
            for (rule, expression) in EXPRESSIONS.iter() {
                prop_assert_eq!(cut(*rule, &text), cut_by(expression, &text));
            }
        }
    }
}
