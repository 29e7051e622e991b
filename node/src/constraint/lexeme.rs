//! Grammars that are one lexeme, a regex or a choice, without Lark around them: for every text in Lark llguidance makes
//! the lexer anew that reads it, and that takes longer than to compile a small grammar.

use super::{ascii, complexity};
use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::derivre::RegexAst;
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::earley::{Grammar, SymbolProps};

/// As llguidance itself reads a regex: `\n` and the like may stand in it as they are.
pub fn of_regex(expression: &str, limits: &ParserLimits) -> anyhow::Result<GrammarInit> {
    let expression = llguidance::regex_to_lark(expression, "");
    of_lexeme(RegexAst::Regex(ascii::of_regex(&expression)), limits)
}

pub fn of_choices(choices: &[String], limits: &ParserLimits) -> anyhow::Result<GrammarInit> {
    let literals = choices.iter().map(|choice| RegexAst::Literal(choice.clone()));
    of_lexeme(RegexAst::Or(literals.collect()), limits)
}

fn of_lexeme(lexeme: RegexAst, limits: &ParserLimits) -> anyhow::Result<GrammarInit> {
    let mut lexer = LexerSpec::new()?;
    let nothing_between = RegexAst::NoMatch;
    lexer.setup_lexeme_class(nothing_between)?;
    let lexeme = lexer.add_greedy_lexeme("text".to_owned(), lexeme, false, None, usize::MAX)?;
    anyhow::ensure!(lexer.cost() <= limits.initial_lexer_fuel, complexity::OURS);
    let mut grammar = Grammar::new(None);
    let is_start = SymbolProps {
        is_start: true,
        ..SymbolProps::default()
    };
    let start = grammar.fresh_symbol_ext("start", is_start);
    let text = grammar.fresh_symbol_ext("text", SymbolProps::default());
    grammar.make_terminal(text, lexeme, &lexer)?;
    grammar.add_rule(start, vec![text])?;
    Ok(GrammarInit::Internal(grammar, lexer))
}

#[cfg(test)]
mod tests {
    use crate::constraint::compiler::Compiler;
    use crate::constraint::tests::{END, vocabulary};
    use proto::request::Grammar;
    use shard::GrammarEnd;

    /// What may come after each part of `text`.
    fn masks(grammar: Grammar, text: &str) -> Vec<(Vec<u32>, GrammarEnd)> {
        let compiler = Compiler::new(&vocabulary(), &[END]);
        let mut follower = compiler.compile(&grammar).unwrap().follower();
        let mut seen = Vec::new();
        for byte in text.bytes().map(Some).chain([None]) {
            let mask = follower.mask().unwrap();
            let allowed = (0..vocabulary().len() as u32).filter(|token| mask.allows(*token));
            seen.push((allowed.collect(), mask.end()));
            if let Some(byte) = byte {
                follower.accept(u32::from(byte)).unwrap();
            }
        }
        seen
    }

    #[test]
    fn a_regex_or_a_choice_means_what_it_means_in_lark() {
        let lark = |text: &str| Grammar::Lark(text.to_owned());
        for (regex, in_lark, text) in [
            ("[a-c]{2,3}(/x)?", r"start: /[a-c]{2,3}(\/x)?/", "abc/x"),
            (r"\d+\\\/", r"start: /\d+\\\//", "12\\/"),
            ("a\n\t?", r"start: /a\n\t?/", "a\n"),
            ("(?i)true|x*", "start: /(?i)true|x*/", "TRUE"),
        ] {
            let regex = Grammar::Regex(regex.to_owned());
            assert_eq!(masks(regex, text), masks(lark(in_lark), text), "{in_lark}");
        }
        let choice = Grammar::Choice(["ab", "", "a\"", "abc"].map(str::to_owned).to_vec());
        let in_lark = lark(
            r#"start: A
A: "ab" | "" | "a\"" | "abc""#,
        );
        assert_eq!(masks(choice, "ab"), masks(in_lark, "ab"));
    }

    #[test]
    fn a_choice_may_have_any_letter() {
        let choice = Grammar::Choice(vec!["\u{7f}\0/".to_owned()]);
        let (_, end) = masks(choice, "\u{7f}\0/").pop().unwrap();
        assert_eq!(end, GrammarEnd::Due);
    }
}
