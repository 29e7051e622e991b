//! The tokenizer's part of a GGUF file's metadata.

use crate::text::TokenizerSource;
use shard::gguf::{Gguf, GgufError};

pub fn read(gguf: &Gguf<'_>) -> Result<TokenizerSource, GgufError> {
    let string = |key: &str| Ok::<_, GgufError>(gguf.string(key)?.map(str::to_owned));
    let strings = |key: &str| {
        let found = gguf.strings(key)?.unwrap_or_default();
        Ok::<_, GgufError>(found.iter().map(|text| (*text).to_owned()).collect())
    };
    Ok(TokenizerSource {
        model: string("tokenizer.ggml.model")?.unwrap_or_default(),
        pre: string("tokenizer.ggml.pre")?,
        tokens: strings("tokenizer.ggml.tokens")?,
        token_types: gguf.i32s("tokenizer.ggml.token_type")?.unwrap_or_default(),
        merges: strings("tokenizer.ggml.merges")?,
        bos: gguf.u32("tokenizer.ggml.bos_token_id")?,
        eos: gguf.u32("tokenizer.ggml.eos_token_id")?,
        eot: gguf.u32("tokenizer.ggml.eot_token_id")?,
        unknown: gguf.u32("tokenizer.ggml.unknown_token_id")?,
        padding: gguf.u32("tokenizer.ggml.padding_token_id")?,
        add_bos: gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(false),
        add_eos: gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        chat_template: string("tokenizer.chat_template")?,
    })
}
