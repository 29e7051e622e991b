//! Digits and word characters of ASCII alone, as in JSON schema's patterns (see [`super::pattern`]) and as other servers take
//! them. To the compiler `\d` is a digit of any script, and a model that may write one of those now and then does.

use super::lark_regex;
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{Ast, ClassPerl, ClassPerlKind, ClassSetItem, Visitor, visit};
use std::convert::Infallible;

/// `regex` with `\d`, `\w` and their opposites written out. What is no regex stays, for the compiler to say why.
pub fn of_regex(regex: &str) -> String {
    let Ok(parsed) = Parser::new().parse(regex) else {
        return regex.to_owned();
    };
    let Ok(classes) = visit(&parsed, Classes::default());
    let mut out = String::with_capacity(regex.len());
    let mut end = 0;
    for class in classes {
        out.push_str(&regex[end..class.span.start.offset]);
        end = class.span.end.offset;
        out.push_str(written_out(&class).unwrap_or(&regex[class.span.start.offset..end]));
    }
    out.push_str(&regex[end..]);
    out
}

/// The same for all regexes between slashes.
pub fn of_lark(lark: &str) -> String {
    let mut out = String::with_capacity(lark.len());
    let mut end = 0;
    for regex in lark_regex::find(lark) {
        out.push_str(&lark[end..regex.inside.start]);
        // Its flags say how it is to be read.
        let flags = match &lark[regex.flags] {
            "" => String::new(),
            flags => format!("(?{flags})"),
        };
        end = regex.inside.end;
        out.push_str(&of_regex(&format!("{flags}{}", &lark[regex.inside]))[flags.len()..]);
    }
    out.push_str(&lark[end..]);
    out
}

/// With brackets of its own, which may stand in other brackets too.
fn written_out(class: &ClassPerl) -> Option<&'static str> {
    match (&class.kind, class.negated) {
        (ClassPerlKind::Digit, false) => Some("[0-9]"),
        (ClassPerlKind::Digit, true) => Some("[^0-9]"),
        (ClassPerlKind::Word, false) => Some("[0-9A-Za-z_]"),
        (ClassPerlKind::Word, true) => Some("[^0-9A-Za-z_]"),
        (ClassPerlKind::Space, _) => None,
    }
}

/// In the order of the text.
#[derive(Default)]
struct Classes(Vec<ClassPerl>);

impl Visitor for Classes {
    type Output = Vec<ClassPerl>;
    type Err = Infallible;

    fn finish(self) -> Result<Vec<ClassPerl>, Infallible> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, part: &Ast) -> Result<(), Infallible> {
        if let Ast::ClassPerl(class) = part {
            self.0.push(ClassPerl::clone(class));
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        if let ClassSetItem::Perl(class) = item {
            self.0.push(class.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::compiler::Compiler;
    use crate::text::{TokenizerSource, Vocabulary};
    use proto::request::Grammar;

    /// Which of an ASCII digit, an Arabic one, an `a` and an `é` may come first, by their places.
    fn first(grammar: &Grammar) -> Vec<u32> {
        const LETTERS: u32 = 4;
        // In the byte alphabet of GPT-2.
        let tokens = ["1", "Ù£", "a", "Ã©", "<|end|>"].map(str::to_owned);
        let vocabulary = Vocabulary::new(&TokenizerSource {
            tokens: tokens.to_vec(),
            token_types: vec![1, 1, 1, 1, 3],
            ..TokenizerSource::default()
        });
        let compiled = Compiler::new(&vocabulary, &[LETTERS]).compile(grammar);
        let mask = compiled.unwrap().follower().mask().unwrap();
        (0..LETTERS).filter(|token| mask.allows(*token)).collect()
    }

    #[test]
    fn an_answer_holds_digits_and_words_of_ascii_alone() {
        for (class, expected) in [
            (r"\d", vec![0]),
            (r"[\D]", vec![1, 2, 3]),
            (r"[\w]", vec![0, 2]),
            (r"\W", vec![1, 3]),
            (r"\p{Nd}", vec![0, 1]),
        ] {
            let regex = Grammar::Regex(class.to_owned());
            let lark = Grammar::Lark(format!("start: /{class}/"));
            assert_eq!(first(&regex), expected, "{regex:?}");
            assert_eq!(first(&lark), expected, "{lark:?}");
        }
    }

    #[test]
    fn digits_and_words_are_written_out_and_all_else_stays() {
        for (regex, written) in [
            (r"\d", "[0-9]"),
            (r"é\d{2}|(\W)\D+?", r"é[0-9]{2}|([^0-9A-Za-z_])[^0-9]+?"),
            (r"[\w.+-]+@[^\d]", "[[0-9A-Za-z_].+-]+@[^[0-9]]"),
            (r"[\d--[\D&&x]]", "[[0-9]--[[^0-9]&&x]]"),
            (
                r"\\d\\\d[\\w]\s\S\p{Nd}[[:word:]]",
                r"\\d\\[0-9][\\w]\s\S\p{Nd}[[:word:]]",
            ),
            ("(?x) \\d # \\d\n\\w", "(?x) [0-9] # \\d\n[0-9A-Za-z_]"),
            // No regexes.
            (r"[+-\d]\d", r"[+-\d]\d"),
            (r"\d(", r"\d("),
        ] {
            assert_eq!(of_regex(regex), written);
        }
    }

    #[test]
    fn of_lark_only_regexes_are_rewritten_and_as_their_flags_say() {
        let lark = "start: \"\\\\d\" /\\d\\/\\d/ </\\d/> # /\\d/\n | %json {\"pattern\": \"/\\\\d/\"} /[#\"]\\w/is\n\
                    A: /\\d # ( \\d\n/x /é/ // /\\d/\nB: /\\d/l";
        let written = "start: \"\\\\d\" /[0-9]\\/[0-9]/ </\\d/> # /\\d/\n | %json {\"pattern\": \"/\\\\d/\"} \
                       /[#\"][0-9A-Za-z_]/is\nA: /[0-9] # ( \\d\n/x /é/ // /\\d/\nB: /\\d/l";
        assert_eq!(of_lark(lark), written);
    }
}
