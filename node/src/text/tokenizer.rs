//! Byte-level BPE, as the metadata of a GGUF file describes it.
//!
//! The ids equal those of the `transformers` tokenizer of the same model, with one bound: a run of more than 32 KiB
//! without a word boundary may be cut where `transformers` would not (see `pieces`). Bytes that the vocabulary cannot
//! spell are left out, as there.

use super::byte_alphabet;
use super::pieces::pieces;
use super::source::TokenizerSource;
use super::template::TemplateError;
use super::vocabulary::Vocabulary;
use aho_corasick::{AhoCorasick, MatchKind};
use serde::Serialize;
use shard::gguf::GgufError;
use std::sync::Arc;
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::utils::SysRegex;

/// More text than this is refused at once: it could not fit any context we serve.
const TEXT_BYTES_MAX: usize = 16 << 20;

const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Why a model's tokenizer or template cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum BuildError {
    #[error("the tokenizer's metadata cannot be read: {0}")]
    Metadata(#[from] GgufError),
    #[error("the tokenizer is of kind `{0}` (tokenizer.ggml.model); served are: gpt2")]
    Model(String),
    #[error("the tokenizer cuts words by `{0}` (tokenizer.ggml.pre); served are: smollm, llama-bpe, default")]
    Words(String),
    #[error("tokenizer.ggml.merges[{index}] is not two tokens with a space between; the file is damaged")]
    Merge { index: usize },
    #[error("the tokenizer's vocabulary and merges do not fit together ({0}); the file is damaged")]
    Vocabulary(String),
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
    #[error("the text has {bytes} bytes; at most {bytes_max} are taken")]
    TooLong { bytes: usize, bytes_max: usize },
}

/// Whether the tokens that the model wants around a text (BOS, EOS) are added to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddSpecial {
    AsModelWants,
    Never,
}

/// How text is cut into words before merging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Digits {
    /// Each numeric character is a word of its own, cut out before the expression sees the text.
    Single,
    AsExpressionSays,
}

pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    merger: BPE,
    words: SysRegex,
    digits: Digits,
    /// Finds the tokens that are taken whole; pattern k is token `whole_ids[k]`.
    whole: AhoCorasick,
    whole_ids: Vec<u32>,
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
        let (expression, digits, merging) = word_rules(source.pre.as_deref())?;
        let vocabulary = Vocabulary::new(&source);
        let whole_ids: Vec<u32> = vocabulary.taken_whole().collect();
        Ok(Tokenizer {
            whole: matcher(&vocabulary, &whole_ids)?,
            whole_ids,
            words: SysRegex::new(expression).expect("the expression is a constant of ours"),
            digits,
            named: named_tokens(&source),
            prefix: source.bos.filter(|_| source.add_bos).into_iter().collect(),
            suffix: source.eos.filter(|_| source.add_eos).into_iter().collect(),
            merger: merger(source, merging)?,
            vocabulary: Arc::new(vocabulary),
        })
    }

    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    pub fn named_tokens(&self) -> &NamedTokens {
        &self.named
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
        for piece in pieces(text) {
            match self.digits {
                Digits::AsExpressionSays => self.encode_words(piece, ids),
                Digits::Single => {
                    split_keeping(piece, char::is_numeric).for_each(|part| self.encode_words(part, ids));
                }
            }
        }
    }

    fn encode_words(&self, text: &str, ids: &mut Vec<u32>) {
        let mut done = 0;
        for (start, end) in self.words.find_iter(text) {
            self.encode_word(&text[done..start], ids);
            self.encode_word(&text[start..end], ids);
            done = end;
        }
        // What no alternative matches (and what is left should the expression give up) is a word too.
        self.encode_word(&text[done..], ids);
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        let merged = self.merger.tokenize(&byte_alphabet::encoded(word));
        let tokens = merged.expect("BPE without an unknown token has no error to give");
        ids.extend(tokens.iter().map(|token| token.id));
    }
}

/// Whether a word that is a token as it stands skips the merges.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Merging {
    Always,
    SkippedForWholeWords,
}

fn word_rules(pre: Option<&str>) -> Result<(&'static str, Digits, Merging), BuildError> {
    match pre {
        Some("smollm") => Ok((GPT2_WORDS, Digits::Single, Merging::Always)),
        Some("llama-bpe") => Ok((
            LLAMA3_WORDS,
            Digits::AsExpressionSays,
            Merging::SkippedForWholeWords,
        )),
        Some("default") | None => Ok((GPT2_WORDS, Digits::AsExpressionSays, Merging::Always)),
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
    built.map_err(|error| BuildError::Vocabulary(error.to_string()))
}

fn merger(source: TokenizerSource, merging: Merging) -> Result<BPE, BuildError> {
    let merges = split_merges(&source.merges)?;
    let ids = source.tokens.into_iter().zip(0u32..);
    let built = BPE::builder()
        .vocab_and_merges(ids.collect::<Vocab>(), merges)
        .ignore_merges(merging == Merging::SkippedForWholeWords)
        .build();
    built.map_err(|error| BuildError::Vocabulary(error.to_string()))
}

fn split_merges(merges: &[String]) -> Result<Merges, BuildError> {
    let pair = |(index, merge): (usize, &String)| {
        let (left, right) = merge.split_once(' ').ok_or(BuildError::Merge { index })?;
        Ok((left.to_string(), right.to_string()))
    };
    merges.iter().enumerate().map(pair).collect()
}

/// `text` in parts: each character that `is_alone` for itself, the runs between them whole.
fn split_keeping(text: &str, is_alone: fn(char) -> bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = match is_alone(first) {
            true => first.len_utf8(),
            false => rest.find(is_alone).unwrap_or(rest.len()),
        };
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}
