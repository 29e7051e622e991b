//! Any grammar, in each language that clients may write one in: refused, or followed for a while.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::constraint::compiler::{Compiled, Compiler};
use node::constraint::follower::Follower;
use node::text::families::{
    CallCount, CallsForm, Family, HERMES, LLAMA, MISTRAL, Presence, ReasoningFirst, Tool,
};
use node_fuzz::model::MODELS;
use node_fuzz::promises;
use proto::request::Grammar;
use serde_json::{Map, Value};
use shard::{GrammarEnd, TokenMask};
use std::sync::LazyLock;

/// The states of a lexer: `max_lexer_states` in node/src/constraint/compiler.rs, of about 2 KiB, in the compiled grammar and
/// in its follower.
const MEMORY_CONSTANT: usize = 64 << 20;
const STEPS: usize = 8;

static COMPILER: LazyLock<Compiler> =
    LazyLock::new(|| Compiler::new(MODELS[0].vocabulary(), MODELS[0].end_tokens()));

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, text)) = bytes.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let Some(grammar) = grammar(choice, &text) else {
        return;
    };
    promises::keep(text.len(), MEMORY_CONSTANT, || {
        if let Ok(compiled) = COMPILER.compile(&grammar) {
            follow(&compiled, text.as_bytes());
        }
    });
});

fn grammar(choice: u8, text: &str) -> Option<Grammar> {
    Some(match choice % 5 {
        0 => Grammar::JsonSchema(text.to_owned()),
        1 => Grammar::Regex(text.to_owned()),
        2 => Grammar::Lark(text.to_owned()),
        3 => Grammar::Choice(text.split('\n').map(str::to_owned).collect()),
        _four => Grammar::Lark(of_calls(choice / 5, serde_json::from_str(text).ok()?)),
    })
}

/// Of answers that call a tool with these parameters.
fn of_calls(choice: u8, parameters: Map<String, Value>) -> String {
    let families: [&dyn Family; 3] = [&HERMES, &LLAMA, &MISTRAL];
    let tool = Tool {
        name: "f".to_owned(),
        parameters,
    };
    let form = CallsForm {
        tools: &[tool],
        presence: match choice & 4 {
            0 => Presence::Forced,
            _four => Presence::Free,
        },
        count: match choice & 8 {
            0 => CallCount::One,
            _eight => CallCount::OneOrMore,
        },
        reasoning: match choice & 16 {
            0 => ReasoningFirst::No,
            _sixteen => ReasoningFirst::May,
        },
        special: &|mark| MODELS[0].mark_token(mark),
    };
    families[choice as usize % families.len()].grammar(&form)
}

/// Takes one of the tokens that may come next, a few times; which, the bytes say.
fn follow(compiled: &Compiled, bytes: &[u8]) {
    let mut follower = compiled.follower();
    for byte in bytes.iter().rev().take(STEPS) {
        let Ok(mask) = follower.mask() else { return };
        let Some(token) = allowed(&mask, *byte) else {
            assert_ne!(
                mask.end(),
                GrammarEnd::NotYet,
                "the grammar goes on with no token"
            );
            return;
        };
        if follow_one(&mut follower, token).is_none() {
            return;
        }
    }
}

fn follow_one(follower: &mut Follower, token: u32) -> Option<()> {
    follower.accept(token).ok()
}

fn allowed(mask: &TokenMask, byte: u8) -> Option<u32> {
    let count = MODELS[0].vocabulary().len() as u32;
    (0..count)
        .map(|token| (token + u32::from(byte)) % count)
        .find(|token| mask.allows(*token))
}
