//! Any answer of a model: what the families' readers find in it does not depend on how it was cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::text::families::{
    AnswerReader, AnswerRules, BesideCalls, CallRules, Ending, HERMES, LLAMA, MISTRAL, Reasoning,
};
use node_fuzz::compare::Whole;
use node_fuzz::promises;

const MEMORY_CONSTANT: usize = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    let [rules, cuts, text @ ..] = bytes else { return };
    let (rules, text) = (rules_of(*rules), String::from_utf8_lossy(text));
    let whole = promises::keep(text.len(), MEMORY_CONSTANT, || read(&rules, [&*text]));
    let in_parts = promises::keep(text.len(), MEMORY_CONSTANT, || read(&rules, parts(&text, *cuts)));
    assert_eq!(whole, in_parts);
});

fn rules_of(byte: u8) -> AnswerRules {
    let names = || ["f".to_owned(), "weather".to_owned()].into();
    let calls = |family| {
        Some(CallRules {
            family,
            names: names(),
            beside: BesideCalls::Content,
        })
    };
    AnswerRules {
        reasoning: match byte / 4 % 3 {
            0 => Reasoning::Unmarked,
            1 => Reasoning::MayOpen,
            _two => Reasoning::Opened,
        },
        calls: match byte % 4 {
            0 => calls(&HERMES),
            1 => calls(&LLAMA),
            2 => calls(&MISTRAL),
            _three => None,
        },
    }
}

fn read<'a>(rules: &AnswerRules, parts: impl IntoIterator<Item = &'a str>) -> Whole {
    let mut reader = AnswerReader::new(rules);
    let mut whole = Whole::default();
    for part in parts {
        whole.add(reader.push(part));
    }
    whole.add(reader.finish(Ending::Whole));
    assert!(reader.calls_over() as usize <= whole.calls());
    whole
}

/// Of one to eight characters, in turns that `cuts` chooses.
fn parts(text: &str, cuts: u8) -> impl Iterator<Item = &str> {
    let (mut rest, mut turn) = (text, cuts);
    std::iter::from_fn(move || {
        turn = turn.wrapping_mul(5).wrapping_add(cuts | 1);
        let letters = usize::from(turn >> 5) + 1;
        let end = rest
            .char_indices()
            .nth(letters)
            .map_or(rest.len(), |(end, _)| end);
        let (part, after) = rest.split_at(end);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}
