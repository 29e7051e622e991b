//! How many repetitions may stand within one another. llguidance pays for what it derives, but looks at its fuel between
//! derivatives only, and one of `((a*)*)*` has for each of its first letters all that is around them, level by level: the
//! work grows with the square of the levels, and 1,000 of them, 16 KB of Lark, took four seconds.

use super::compiler::GrammarError;
use llguidance::derivre::{ExprRef, RegexBuilder};
use llguidance::earley::lexerspec::LexerSpec;

const REPETITIONS_MAX: u32 = 32;

/// Of all lexemes, whichever language they come from.
pub fn check(lexer: &LexerSpec) -> Result<(), GrammarError> {
    let mut example = RegexBuilder::new();
    let repetition = example.mk_regex("a*").expect("this is a regex");
    // The type has no name outside of derivre.
    let repetition = example.exprset().get_tag(repetition);
    let expressions = lexer.regex_builder.exprset();
    // Parts come before what is made of them.
    let mut depths: Vec<u32> = vec![0; expressions.len()];
    for id in 1..expressions.len() {
        let expression = ExprRef::new(id as u32);
        let parts = expressions.get_args(expression).iter();
        let deepest = parts.map(|part| depths[part.as_usize()]).max().unwrap_or(0);
        depths[id] = deepest + u32::from(expressions.get_tag(expression) == repetition);
    }
    match depths.iter().any(|depth| *depth > REPETITIONS_MAX) {
        true => Err(GrammarError::new(format!(
            "more than {REPETITIONS_MAX} repetitions stand within one another"
        ))),
        false => Ok(()),
    }
}
