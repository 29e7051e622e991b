//! From text to tokens and back: tokenizer, chat template, incremental detokenizer, stop strings.
//!
//! Everything here is synchronous and bounded by the length of its input; callers keep long inputs off async threads.

mod bpe;
mod byte_alphabet;
mod conversation;
mod detokenizer;
pub mod families;
mod python_json;
mod python_methods;
mod source;
mod stop;
mod template;
#[cfg(test)]
pub mod tests;
mod tokenizer;
mod vocabulary;
mod words;

pub use conversation::{CallKind, CalledFunction, Conversation, MadeCall, Message};
pub use detokenizer::{Detokenizer, SpecialTokens, decode};
pub use source::TokenizerSource;
pub use stop::{StopEnding, StopMatcher, Stopped};
pub use template::{ChatTemplate, TemplateError};
pub use tokenizer::{AddSpecial, BuildError, EncodeError, NamedTokens, Tokenizer};
pub use vocabulary::Vocabulary;

use families::marks;
use shard::gguf::Gguf;
use std::sync::Arc;

/// What a model file says about text.
pub struct TextModel {
    tokenizer: Tokenizer,
    /// `None`: the file has none, so the model serves completions only.
    template: Option<ChatTemplate>,
    end_tokens: Vec<u32>,
    /// Marks of the families that are special tokens here.
    marks: Vec<(&'static str, u32)>,
}

impl TextModel {
    pub fn from_gguf(gguf: &Gguf) -> Result<TextModel, BuildError> {
        TextModel::from_source(TokenizerSource::from_gguf(gguf)?)
    }

    pub fn from_source(source: TokenizerSource) -> Result<TextModel, BuildError> {
        let end_tokens = source.end_tokens();
        let template_source = source.chat_template.clone();
        let tokenizer = Tokenizer::new(source)?;
        let template = match template_source {
            Some(text) => Some(ChatTemplate::new(&text, tokenizer.named_tokens())?),
            None => None,
        };
        Ok(TextModel {
            marks: special_marks(tokenizer.vocabulary()),
            tokenizer,
            template,
            end_tokens,
        })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        self.tokenizer.vocabulary()
    }

    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// The tokens with which the model itself ends an answer; ascending, without repeats.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// The special token that a family's mark is; `None`: the model spells it with ordinary ones.
    pub fn mark_token(&self, mark: &str) -> Option<u32> {
        let found = self.marks.iter().find(|(text, _)| *text == mark);
        found.map(|(_, id)| *id)
    }
}

fn special_marks(vocabulary: &Vocabulary) -> Vec<(&'static str, u32)> {
    let marks = marks();
    let special = vocabulary.taken_whole().filter(|id| vocabulary.is_special(*id));
    let named = special.filter_map(|id| {
        let mark = marks
            .iter()
            .find(|mark| mark.as_bytes() == vocabulary.bytes(id))?;
        Some((*mark, id))
    });
    named.collect()
}
