//! The tokens that end an answer: they are never part of it, so no grammar may ask for one by name.

use super::compiler::GrammarError;
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::toktrie::TokTrie;

/// Where a range of tokens has one among others, the others are meant; masks leave it out.
pub fn check(lexer: &LexerSpec, end_tokens: &[u32], tokens: &TokTrie) -> Result<(), GrammarError> {
    let is_end = |token: &u32| end_tokens.binary_search(token).is_ok();
    for end in end_tokens {
        let before = (0..*end).rev().find(|token| !is_end(token));
        let after = (*end..tokens.vocab_size() as u32).find(|token| !is_end(token));
        let is_named = lexer.lexemes.iter().any(|lexeme| {
            let is_among_others = before
                .into_iter()
                .chain(after)
                .any(|token| lexeme.contains_token(token));
            lexeme.contains_token(*end) && !is_among_others
        });
        if is_named {
            let name = tokens.decode_str(&[*end]);
            return Err(GrammarError::new(format!(
                "`{name}` ends an answer and is no part of it; leave it out: where the grammar ends, the answer ends"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::constraint::compiler::Compiler;
    use crate::constraint::tests::{END, vocabulary};
    use proto::request::Grammar;
    use shard::GrammarEnd;

    #[test]
    fn a_grammar_may_not_ask_for_a_token_that_ends_the_answer() {
        let compiler = Compiler::new(&vocabulary(), &[END]);
        let compiled = |text: &str| compiler.compile(&Grammar::Lark(text.to_owned()));
        for named in ["start: \"a\" <|end|>", "start: \"a\" (<[128]> | \"b\")"] {
            let error = compiled(named).err().unwrap().to_string();
            assert!(error.contains("`<|end|>` ends an answer"), "{named}: {error}");
        }
        let mut follower = compiled("start: <[97-129]> \"b\"").unwrap().follower();
        let mask = follower.mask().unwrap();
        assert!(mask.allows(97) && mask.allows(129) && !mask.allows(END));
        assert_eq!(mask.end(), GrammarEnd::NotYet);
    }
}
