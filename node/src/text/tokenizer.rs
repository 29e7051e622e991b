//! Byte-level BPE, as the metadata of a GGUF file describes it.
//!
//! The ids equal those of the `transformers` tokenizer of the same model. Bytes that the vocabulary cannot spell are left
//! out, as there. Time and memory grow with the length of the text, whatever stands in it.

use super::bpe::{Bpe, BpeError, Merging};
use super::source::TokenizerSource;
use super::template::TemplateError;
use super::vocabulary::Vocabulary;
use super::words::{WordRule, words};
use aho_corasick::{AhoCorasick, MatchKind};
use serde::Serialize;
use shard::gguf::GgufError;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// More text than this is refused at once: it could not fit any context we serve.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// Why a model's tokenizer or template cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum BuildError {
    #[error("the tokenizer's metadata cannot be read: {0}")]
    Metadata(#[from] GgufError),
    #[error("the tokenizer is of kind `{0}` (tokenizer.ggml.model); served are: gpt2")]
    Model(String),
    #[error("the tokenizer cuts words by `{0}` (tokenizer.ggml.pre); served are: smollm, llama-bpe, default")]
    Words(String),
    #[error("{0}; the file is damaged")]
    Merges(#[from] BpeError),
    #[error("the tokens that are taken whole cannot be searched for: {0}")]
    Whole(#[from] aho_corasick::BuildError),
    #[error("tokenizer.ggml.{field} names token {id}, but there are only {tokens}; the file is damaged")]
    NoSuchToken {
        field: &'static str,
        id: u32,
        tokens: usize,
    },
    #[error("the chat template cannot be used: {0}")]
    Template(#[from] TemplateError),
}

#[derive(thiserror::Error, PartialEq, Eq, Debug)]
pub enum EncodeError {
    #[error("the prompt is too long: its text has {bytes} bytes and at most {bytes_max} are taken")]
    TooLong { bytes: usize, bytes_max: usize },
}

/// Whether the tokens that the model wants around a text (BOS, EOS) are added to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddSpecial {
    AsModelWants,
    Never,
}

pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    bpe: Bpe,
    rule: WordRule,
    /// Finds the tokens that are taken whole; pattern k is token `whole_ids[k]`.
    whole: AhoCorasick,
    whole_ids: Vec<u32>,
    /// No token stands for more bytes of a text; `None`: no token stands for any.
    bytes_per_token_max: Option<NonZeroUsize>,
    named: NamedTokens,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

/// Tokens with a role, as text, under the names that templates and clients use.
#[derive(Serialize, Clone, Default, Debug)]
pub struct NamedTokens {
    #[serde(rename = "bos_token", skip_serializing_if = "Option::is_none")]
    pub bos: Option<String>,
    #[serde(rename = "eos_token", skip_serializing_if = "Option::is_none")]
    pub eos: Option<String>,
    #[serde(rename = "unk_token", skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    #[serde(rename = "pad_token", skip_serializing_if = "Option::is_none")]
    pub padding: Option<String>,
}

impl Tokenizer {
    pub fn new(source: TokenizerSource) -> Result<Tokenizer, BuildError> {
        if source.model != "gpt2" {
            return Err(BuildError::Model(source.model));
        }
        check_ids(&source)?;
        let (rule, merging) = word_rule(source.pre.as_deref())?;
        let vocabulary = Vocabulary::new(&source);
        let whole = vocabulary.taken_whole();
        let whole_ids: Vec<u32> = whole.filter(|id| !vocabulary.bytes(*id).is_empty()).collect();
        let bpe = Bpe::new(&source.tokens, &source.merges, merging)?;
        Ok(Tokenizer {
            bytes_per_token_max: NonZeroUsize::new(vocabulary.token_bytes_max()),
            whole: matcher(&vocabulary, &whole_ids)?,
            whole_ids,
            rule,
            named: named_tokens(&source),
            prefix: source.bos.filter(|_| source.add_bos).into_iter().collect(),
            suffix: source.eos.filter(|_| source.add_eos).into_iter().collect(),
            bpe,
            vocabulary: Arc::new(vocabulary),
        })
    }

    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    pub fn named_tokens(&self) -> &NamedTokens {
        &self.named
    }

    /// `text` has at least so many tokens, known without cutting it: each of its bytes that the vocabulary can spell is in
    /// one of them.
    pub fn tokens_min(&self, text: &str) -> usize {
        self.bytes_per_token_max.map_or(0, |bytes_max| {
            self.bpe.spelled_bytes(text).div_ceil(bytes_max.get())
        })
    }

    /// The ids of `text`. Special tokens spelled out in `text` become those tokens, as in `transformers` and vLLM; who
    /// wants a user's text to be free of them has to take them out before.
    pub fn encode(&self, text: &str, special: AddSpecial) -> Result<Vec<u32>, EncodeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(EncodeError::TooLong {
                bytes: text.len(),
                bytes_max: TEXT_BYTES_MAX,
            });
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        match special {
            AddSpecial::AsModelWants => {
                ids.extend(&self.prefix);
                self.encode_into(text, &mut ids);
                ids.extend(&self.suffix);
            }
            AddSpecial::Never => self.encode_into(text, &mut ids),
        }
        Ok(ids)
    }

    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        let mut done = 0;
        for found in self.whole.find_iter(text) {
            self.encode_plain(&text[done..found.start()], ids);
            ids.push(self.whole_ids[found.pattern().as_usize()]);
            done = found.end();
        }
        self.encode_plain(&text[done..], ids);
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        words(self.rule, text).for_each(|word| self.bpe.encode(word.as_bytes(), ids));
    }
}

fn word_rule(pre: Option<&str>) -> Result<(WordRule, Merging), BuildError> {
    match pre {
        Some("smollm") => Ok((WordRule::Gpt2SingleDigits, Merging::Always)),
        Some("llama-bpe") => Ok((WordRule::Llama3, Merging::SkippedForWholeWords)),
        Some("default") | None => Ok((WordRule::Gpt2, Merging::Always)),
        Some(other) => Err(BuildError::Words(other.to_string())),
    }
}

fn check_ids(source: &TokenizerSource) -> Result<(), BuildError> {
    let named = [
        ("bos_token_id", source.bos),
        ("eos_token_id", source.eos),
        ("eot_token_id", source.eot),
        ("unknown_token_id", source.unknown),
        ("padding_token_id", source.padding),
    ];
    let tokens = source.tokens.len();
    for (field, id) in named {
        if let Some(id) = id.filter(|id| *id as usize >= tokens) {
            return Err(BuildError::NoSuchToken { field, id, tokens });
        }
    }
    Ok(())
}

fn named_tokens(source: &TokenizerSource) -> NamedTokens {
    let text = |id: Option<u32>| id.and_then(|id| source.tokens.get(id as usize).cloned());
    NamedTokens {
        bos: text(source.bos),
        eos: text(source.eos),
        unknown: text(source.unknown),
        padding: text(source.padding),
    }
}

fn matcher(vocabulary: &Vocabulary, ids: &[u32]) -> Result<AhoCorasick, BuildError> {
    let patterns = ids.iter().map(|id| vocabulary.bytes(*id));
    let built = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(patterns);
    Ok(built?)
}
