//! From a grammar to a follower at its start.

use super::follower::{Follower, Lost};
use super::{ascii, bounds, complexity, end_tokens, lexeme, nesting, schema, unimplemented, vocabulary};
use crate::text::Vocabulary;
use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::earley::{CGrammar, SlicedBiasComputer};
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory, panic_utils};
use proto::request::Grammar;
use serde_json::Value;
use shard::TokenMask;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Why a grammar is not taken, in words for whoever wrote it.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{0}")]
pub struct GrammarError(String);

/// More of a compiler's message helps nobody.
const MESSAGE_BYTES_MAX: usize = 600;

/// Messages of llguidance that speak of its own options.
const IN_OUR_WORDS: [(&str, &str); 2] = [
    (
        "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf",
        "`oneOf` is supported where its branches plainly exclude each other",
    ),
    (
        "Only absolute $ref's (#/...) are supported without 'referencing' feature; ref",
        "`$ref` is supported within the document only (#/...), but it is",
    ),
];

impl GrammarError {
    pub fn new(message: impl Into<String>) -> GrammarError {
        GrammarError(message.into())
    }

    fn of_compiler(error: &anyhow::Error, grammar: &Grammar) -> GrammarError {
        let message = format!("{error:#}");
        // A fault inside the compiler is caught and brings a backtrace, which is for us.
        let message = match message.split_once("\n<backtrace>") {
            Some((panic, backtrace)) => {
                tracing::error!(panic, backtrace, "a grammar broke the compiler");
                "the compiler cannot work with it".to_owned()
            }
            None => complexity::in_our_words(unimplemented::in_our_words(message, grammar)),
        };
        let message = IN_OUR_WORDS
            .iter()
            .fold(message, |message, (theirs, ours)| message.replace(theirs, ours));
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        GrammarError(message[..end].to_owned())
    }
}

/// Work and memory of one grammar, counted by llguidance. In the comments: what they mean on one core of 2023.
fn limits() -> ParserLimits {
    ParserLimits {
        // 20 ms.
        initial_lexer_fuel: 1_000_000,
        // 14 ms, and 3 ms more for the items.
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // Four for each property of an object that may be left out, and 1,024 of those are promised: 20 ms.
        max_items_in_row: 4_500,
        // 1 to 2 KiB each, and every stream has its own.
        max_lexer_states: 20_000,
        max_grammar_size: 50_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// Compiles for the vocabulary of one model.
pub struct Compiler {
    factory: ParserFactory,
    /// Ascending.
    end_tokens: Arc<[u32]>,
}

/// A grammar ready to be followed, again and again.
pub struct Compiled {
    start: Follower,
    /// About as much memory as it holds.
    pub bytes: usize,
}

impl Compiler {
    /// Takes a moment and a few dozen bytes for each token.
    pub fn new(vocabulary: &Vocabulary, end_tokens: &[u32]) -> Compiler {
        let tokens = vocabulary::token_tree(vocabulary, end_tokens);
        let slices = SlicedBiasComputer::general_slices();
        let factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices);
        let mut factory = factory.expect("the slices are constants of llguidance");
        factory.quiet();
        let end_tokens: BTreeSet<u32> = end_tokens.iter().copied().collect();
        *factory.limits_mut() = limits();
        Compiler {
            factory,
            end_tokens: end_tokens.into_iter().collect(),
        }
    }

    /// The same grammar always compiles or always fails.
    pub fn compile(&self, grammar: &Grammar) -> Result<Compiled, GrammarError> {
        bounds::check(grammar)?;
        let parser = self.factory.create_parser_from_init_default(self.read(grammar)?);
        let parser = parser.map_err(|error| GrammarError::of_compiler(&error, grammar))?;
        let bytes = parser.parser.lexer_stats().num_bytes + bytes(parser.parser.grammar());
        let mut start = Follower::new(Matcher::new(Ok(parser)), Arc::clone(&self.end_tokens));
        // Those who follow it find the first mask ready.
        let first = start.mask().map_err(not_followed)?;
        self.try_object(&first, start.apart())?;
        Ok(Compiled { start, bytes })
    }

    /// Where objects are large, it is behind their first brace and quote that all their names have to be thought of.
    fn try_object(&self, first: &TokenMask, mut follower: Follower) -> Result<(), GrammarError> {
        let tokens = self.factory.tok_env().tok_trie();
        let mut mask = first.clone();
        for text in ["{", "\""] {
            let token = tokens.token_id(text.as_bytes());
            let Some(token) = token.filter(|token| mask.allows(*token)) else {
                return Ok(());
            };
            follower.accept(token).map_err(not_followed)?;
            mask = follower.mask().map_err(not_followed)?;
        }
        Ok(())
    }

    fn read(&self, grammar: &Grammar) -> Result<GrammarInit, GrammarError> {
        let tokens = self.factory.tok_env().clone();
        // As wherever llguidance is handed what came from outside: a fault of it is an error.
        let read = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            let read = match grammar {
                Grammar::JsonObject => of_schema(schema::object()),
                Grammar::JsonSchema(text) => of_schema(schema::read(text)?),
                Grammar::Regex(expression) => lexeme::of_regex(expression, &limits())?,
                Grammar::Choice(choices) => lexeme::of_choices(choices, &limits())?,
                Grammar::Lark(text) => {
                    GrammarInit::Serialized(TopLevelGrammar::from_lark(ascii::of_lark(text)))
                }
            };
            read.to_internal(Some(tokens), limits())
        }));
        let (grammar, lexer) = read.map_err(|error| GrammarError::of_compiler(&error, grammar))?;
        nesting::check(&lexer)?;
        let tokens = self.factory.tok_env().tok_trie();
        end_tokens::check(&lexer, &self.end_tokens, tokens)?;
        Ok(GrammarInit::Internal(grammar, lexer))
    }
}

fn not_followed(lost: Lost) -> GrammarError {
    GrammarError(format!(
        "nothing matches it, or it is too costly to follow ({lost})"
    ))
}

impl Compiled {
    /// One that shares nothing with others: whatever becomes of it, they do not notice.
    pub fn follower(&self) -> Follower {
        self.start.apart()
    }
}

/// llguidance counts what its lexer takes. A grammar of many symbols takes more.
fn bytes(grammar: &CGrammar) -> usize {
    const SYMBOL_BYTES: usize = 1024;
    const PART_BYTES: usize = 32;
    let (mut seen, mut open, mut parts) = (BTreeSet::new(), vec![grammar.start()], 0);
    while let Some(symbol) = open.pop() {
        if !seen.insert(symbol.as_index()) {
            continue;
        }
        for rule in grammar.rules_of(symbol) {
            let (symbols, _, _) = grammar.rule_rhs(*rule);
            parts += symbols.len();
            open.extend(symbols);
        }
    }
    seen.len() * SYMBOL_BYTES + parts * PART_BYTES
}

fn of_schema(schema: Value) -> GrammarInit {
    GrammarInit::Serialized(TopLevelGrammar::from_json_schema(schema))
}
