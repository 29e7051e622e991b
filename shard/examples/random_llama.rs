//! Writes a Llama of about a billion random weights, with the tokenizer of another model: something large to measure with,
//! where nothing large can be fetched. Its tokens mean nothing.
//!
//! ```sh
//! cargo run --release -p shard --example random_llama -- TOKENIZER.gguf OUT.gguf [q4_0|q8_0|bf16] [LAYERS]
//! ```

use kernels::WeightFormat;
use shard::Gguf;
use shard::testing::{GgufWriter, TinyLlama};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [tokenizer, out, more @ ..] = words.as_slice() else {
        panic!("give a model with a tokenizer, and where to write");
    };
    let format = match more.first().map(String::as_str) {
        Some("q4_0") | None => WeightFormat::Q4_0,
        Some("q8_0") => WeightFormat::Q8_0,
        Some("bf16") => WeightFormat::Bf16,
        Some(other) => panic!("q4_0, q8_0 or bf16, not {other}"),
    };
    let layers = more
        .get(1)
        .map_or(16, |word| word.parse().expect("a number of layers"));
    let bytes = std::fs::read(tokenizer).expect("a readable file");
    let gguf = Gguf::parse(&bytes).expect("a GGUF file");
    let mut writer = GgufWriter::new(3);
    let vocabulary = copy_tokenizer(&gguf, &mut writer);
    let llama = TinyLlama {
        layers,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        feed_forward: 8192,
        vocabulary,
        context_tokens_max: 8192,
        format,
        ..TinyLlama::default()
    };
    llama.write(&mut writer);
    let file = writer.finish();
    std::fs::write(out, &file).expect("a place to write");
    println!("{out}: {} MiB, {layers} layers", file.len() >> 20);
}

/// Gives how many tokens it has.
fn copy_tokenizer(gguf: &Gguf<'_>, writer: &mut GgufWriter) -> usize {
    for key in [
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.chat_template",
    ] {
        if let Some(text) = gguf.string(key).expect("a text") {
            writer.string(key, text);
        }
    }
    for key in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"] {
        if let Some(number) = gguf.u32(key).expect("a number") {
            writer.u32(key, number);
        }
    }
    if let Some(types) = gguf.i32s("tokenizer.ggml.token_type").expect("numbers") {
        writer.i32s("tokenizer.ggml.token_type", &types);
    }
    let merges = gguf.strings("tokenizer.ggml.merges").expect("texts");
    writer.strings("tokenizer.ggml.merges", merges.unwrap_or_default());
    let tokens = gguf.strings("tokenizer.ggml.tokens").expect("texts");
    let tokens = tokens.expect("a tokenizer");
    writer.strings("tokenizer.ggml.tokens", tokens);
    tokens.len()
}
