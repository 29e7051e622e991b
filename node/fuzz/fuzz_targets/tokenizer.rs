//! Any text: its tokens are those of the vocabulary, and stand for the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::text::{AddSpecial, SpecialTokens, decode};
use node_fuzz::model::MODELS;
use node_fuzz::promises;
use std::borrow::Cow;

/// The first allocation of the ids.
const MEMORY_CONSTANT: usize = 4 << 10;
/// A text is repeated up to here when the first byte says so: what is slow is most often long and uniform.
const REPEATED_BYTES: usize = 512;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, text)) = bytes.split_first() else {
        return;
    };
    let model = &MODELS[choice as usize % MODELS.len()];
    let text = text_of(choice, text);
    let ids = promises::keep(text.len(), MEMORY_CONSTANT, || {
        model.tokenizer().encode(&text, AddSpecial::Never)
    });
    let ids = ids.expect("the text is short");
    assert!(ids.iter().all(|id| model.vocabulary().contains(*id)));
    let back = promises::keep(text.len(), MEMORY_CONSTANT, || {
        decode(model.vocabulary(), &ids, SpecialTokens::Show)
    });
    assert!(back == text, "{text:?} comes back as {back:?}");
});

fn text_of(choice: u8, bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    match choice {
        255 if !text.is_empty() => text.repeat(REPEATED_BYTES.div_ceil(text.len())).into(),
        _as_it_is => text,
    }
}
