//! `cargo run --release -p node --example tokenizer_bench -- MODEL.gguf`: how long the tokenizer takes for hostile text
//! of 1, 2 and 4 MB. What counts is the last column, where 2.0 is linear, and the slowest rate.

use node::text::{AddSpecial, SpecialTokens, TextModel, decode};
use shard::gguf::Gguf;
use std::time::Instant;

const MEGABYTE: usize = 1_000_000;
const ROUNDS: usize = 3;

/// What is repeated to fill the text.
const UNITS: [(&str, &str); 18] = [
    ("one letter", "a"),
    ("one capital", "Z"),
    ("one digit", "7"),
    ("dots", "."),
    ("carets", "^"),
    ("spaces", " "),
    ("line ends", "\n"),
    ("tabs and line ends", "\t\n"),
    ("apostrophes", "'"),
    ("contractions", "'ll've"),
    ("combining marks", "\u{301}"),
    ("letters with marks", "a\u{301}\u{323}"),
    ("emoji", "🙂"),
    ("emoji families", "👩‍👩‍👧‍👦"),
    ("han", "漢"),
    ("no word twice", ""),
    ("special tokens", "<|im_start|>"),
    ("almost special tokens", "<|im_star"),
];

fn main() {
    let path = std::env::args()
        .nth(1)
        .expect("usage: tokenizer_bench MODEL.gguf");
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let gguf = Gguf::parse(&file).expect("a GGUF file");
    let model = TextModel::from_gguf(&gguf).expect("a model with a tokenizer");
    println!(
        "{:<24}{:>9}{:>9}{:>9}{:>10}{:>10}{:>12}",
        "text", "1 MB ms", "2 MB ms", "4 MB ms", "MB/s", "back MB/s", "4 MB/2 MB"
    );
    for (name, unit) in UNITS {
        let millis = [1, 2, 4].map(|megabytes| encode_millis(&model, &text(unit, megabytes * MEGABYTE)));
        let whole = text(unit, 4 * MEGABYTE);
        let back = decode_millis(&model, &whole);
        println!(
            "{name:<24}{:>9.0}{:>9.0}{:>9.0}{:>10.1}{:>10.1}{:>12.2}",
            millis[0],
            millis[1],
            millis[2],
            4000.0 / millis[2],
            4000.0 / back,
            millis[2] / millis[1]
        );
    }
}

/// `unit` again and again; of an empty one, letters and signs in an order that does not repeat.
fn text(unit: &str, bytes: usize) -> String {
    if !unit.is_empty() {
        return unit.repeat(bytes / unit.len());
    }
    let mut state = 1u64;
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 33) as u8 % 94)
    });
    letters.take(bytes).collect()
}

/// The least of some rounds: everything else that runs only adds.
fn encode_millis(model: &TextModel, text: &str) -> f64 {
    least((0..ROUNDS).map(|_| {
        let started = Instant::now();
        let ids = model
            .tokenizer()
            .encode(text, AddSpecial::Never)
            .expect("not too long");
        let millis = started.elapsed().as_secs_f64() * 1000.0;
        assert!(!ids.is_empty());
        millis
    }))
}

fn decode_millis(model: &TextModel, text: &str) -> f64 {
    let ids = model
        .tokenizer()
        .encode(text, AddSpecial::Never)
        .expect("not too long");
    least((0..ROUNDS).map(|_| {
        let started = Instant::now();
        let decoded = decode(model.vocabulary(), &ids, SpecialTokens::Show);
        let millis = started.elapsed().as_secs_f64() * 1000.0;
        assert_eq!(decoded, text);
        millis
    }))
}

fn least(millis: impl Iterator<Item = f64>) -> f64 {
    millis.fold(f64::INFINITY, f64::min)
}
