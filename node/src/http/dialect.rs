//! The two shapes of an answer: chat and completions.

use super::choice::{FinishReason, Fragment, ScoredToken};
use super::logprobs::{self, TokenNames};
use crate::text::Vocabulary;
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Chat,
    Completion,
}

/// How log-probabilities are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logprobs {
    Hidden,
    Shown(TokenNames),
}

/// A choice with all its text.
#[derive(Default)]
pub struct WholeChoice {
    pub text: String,
    pub tokens: Vec<ScoredToken>,
    pub finish: Option<FinishReason>,
}

impl WholeChoice {
    pub fn add(&mut self, fragment: Fragment) {
        self.text.push_str(&fragment.text);
        self.tokens.extend(fragment.tokens);
        self.finish = fragment.finish.or(self.finish);
    }
}

impl Dialect {
    pub fn id_prefix(self) -> &'static str {
        match self {
            Dialect::Chat => "chatcmpl-",
            Dialect::Completion => "cmpl-",
        }
    }

    pub fn whole_object(self) -> &'static str {
        match self {
            Dialect::Chat => "chat.completion",
            Dialect::Completion => "text_completion",
        }
    }

    pub fn chunk_object(self) -> &'static str {
        match self {
            Dialect::Chat => "chat.completion.chunk",
            Dialect::Completion => "text_completion",
        }
    }

    pub fn whole_choice(
        self,
        index: u32,
        choice: &WholeChoice,
        shown: Logprobs,
        vocabulary: &Vocabulary,
    ) -> Value {
        let finish = choice.finish.map(FinishReason::name);
        let logprobs = self.logprobs(&choice.tokens, shown, vocabulary);
        match self {
            Dialect::Chat => json!({
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": null},
                "logprobs": logprobs,
                "finish_reason": finish,
            }),
            Dialect::Completion => json!({
                "index": index, "text": choice.text, "logprobs": logprobs, "finish_reason": finish,
            }),
        }
    }

    /// What a stream says of a choice before its first token.
    pub fn opening(self, index: u32) -> Option<Value> {
        match self {
            Dialect::Chat => Some(json!({
                "index": index,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": null,
                "finish_reason": null,
            })),
            Dialect::Completion => None,
        }
    }

    /// Text and tokens of a fragment, without its end.
    pub fn part(self, index: u32, fragment: &Fragment, shown: Logprobs, vocabulary: &Vocabulary) -> Value {
        let logprobs = self.logprobs(&fragment.tokens, shown, vocabulary);
        match self {
            Dialect::Chat => json!({
                "index": index,
                "delta": {"content": fragment.text},
                "logprobs": logprobs,
                "finish_reason": null,
            }),
            Dialect::Completion => json!({
                "index": index, "text": fragment.text, "logprobs": logprobs, "finish_reason": null,
            }),
        }
    }

    pub fn closing(self, index: u32, finish: FinishReason) -> Value {
        match self {
            Dialect::Chat => json!({
                "index": index, "delta": {}, "logprobs": null, "finish_reason": finish.name(),
            }),
            Dialect::Completion => json!({
                "index": index, "text": "", "logprobs": null, "finish_reason": finish.name(),
            }),
        }
    }

    fn logprobs(self, tokens: &[ScoredToken], shown: Logprobs, vocabulary: &Vocabulary) -> Value {
        match (shown, self) {
            (Logprobs::Hidden, Dialect::Chat | Dialect::Completion) => Value::Null,
            (Logprobs::Shown(names), Dialect::Chat) => logprobs::chat(tokens, names, vocabulary),
            (Logprobs::Shown(names), Dialect::Completion) => logprobs::completion(tokens, names, vocabulary),
        }
    }
}
