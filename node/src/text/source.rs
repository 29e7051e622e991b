//! What a model file says about its tokenizer, before any of it is believed.

use shard::gguf::{Gguf, GgufError};

/// Control tokens that end a turn in the model families we serve, for files that do not name theirs.
const TURN_ENDS: [&str; 3] = ["<|eot_id|>", "<|im_end|>", "<end_of_turn>"];

/// The `tokenizer.…` metadata of a GGUF file, as found there.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenizerSource {
    /// `tokenizer.ggml.model`: the kind of tokenizer.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is cut into words; absent means `default`.
    pub pre: Option<String>,
    /// By id. Ordinary tokens are written in the byte alphabet of GPT-2, special ones as they are.
    pub tokens: Vec<String>,
    /// By id, in GGUF's numbers (1 normal, 3 control, 4 user-defined, …). Empty: all normal.
    pub token_types: Vec<i32>,
    /// Best first, each two tokens with a space between.
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// End of a turn, where it is another token than `eos`.
    pub eot: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
    pub chat_template: Option<String>,
}

impl TokenizerSource {
    pub fn from_gguf(gguf: &Gguf) -> Result<TokenizerSource, GgufError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let pre = gguf.string("tokenizer.ggml.pre")?;
        let tokens = gguf.required("tokenizer.ggml.tokens", Gguf::strings)?;
        let named_eot = gguf.u32("tokenizer.ggml.eot_token_id")?;
        Ok(TokenizerSource {
            model: gguf.required("tokenizer.ggml.model", Gguf::string)?.to_string(),
            pre: pre.map(str::to_string),
            token_types: gguf.i32s("tokenizer.ggml.token_type")?.unwrap_or_default(),
            merges: owned(gguf.required("tokenizer.ggml.merges", Gguf::strings)?),
            bos: gguf.u32("tokenizer.ggml.bos_token_id")?,
            eos: gguf.u32("tokenizer.ggml.eos_token_id")?,
            eot: named_eot.or_else(|| usual_turn_end(tokens)),
            unknown: gguf.u32("tokenizer.ggml.unknown_token_id")?,
            padding: gguf.u32("tokenizer.ggml.padding_token_id")?,
            // Llama 3 wants its BOS also where an older file does not say so.
            add_bos: gguf
                .bool("tokenizer.ggml.add_bos_token")?
                .unwrap_or(pre == Some("llama-bpe")),
            add_eos: gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            chat_template: gguf.string("tokenizer.chat_template")?.map(str::to_string),
            tokens: owned(tokens),
        })
    }

    /// The tokens that end an answer; ascending, without repeats.
    pub fn end_tokens(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = self.eos.into_iter().chain(self.eot).collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}

fn usual_turn_end(tokens: &[&str]) -> Option<u32> {
    let position = tokens.iter().position(|token| TURN_ENDS.contains(token));
    position.and_then(|id| u32::try_from(id).ok())
}
