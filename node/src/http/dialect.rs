//! The two shapes of an answer: chat and completions.

use super::choice::{CallPart, FinishReason, Fragment, ScoredToken};
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
    pub reasoning: String,
    pub calls: Vec<WholeCall>,
    pub tokens: Vec<ScoredToken>,
    /// Without those of an echoed prompt.
    pub generated: Vec<u32>,
    pub finish: Option<FinishReason>,
}

pub struct WholeCall {
    pub id: String,
    pub name: String,
    pub arguments: String,
}

impl WholeChoice {
    pub fn add(&mut self, fragment: Fragment) {
        self.text.push_str(&fragment.text);
        self.generated.extend(fragment.generated());
        self.reasoning.push_str(&fragment.reasoning);
        fragment.calls.into_iter().for_each(|part| self.add_call(part));
        self.tokens.extend(fragment.tokens);
        self.finish = fragment.finish.or(self.finish);
    }

    fn add_call(&mut self, part: CallPart) {
        match part {
            CallPart::Begins { id, name, .. } => self.calls.push(WholeCall {
                id,
                name,
                arguments: String::new(),
            }),
            CallPart::Arguments { index, text } => self.calls[index as usize].arguments.push_str(&text),
        }
    }

    /// The assistant's message of a chat.
    fn message(&self) -> Value {
        let content = match self.text.is_empty() && !self.calls.is_empty() {
            true => Value::Null,
            false => json!(self.text),
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        add_reasoning(&mut message, &self.reasoning);
        if !self.calls.is_empty() {
            let calls = self.calls.iter().map(|call| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": call.id, "type": "function", "function": function})
            });
            message["tool_calls"] = calls.collect();
        }
        message
    }
}

/// Under both names that clients look for.
fn add_reasoning(message: &mut Value, reasoning: &str) {
    if !reasoning.is_empty() {
        message["reasoning"] = json!(reasoning);
        message["reasoning_content"] = json!(reasoning);
    }
}

/// What a fragment adds to a message, a delta for each chunk.
fn deltas(fragment: &Fragment) -> Vec<Value> {
    let mut deltas = Vec::new();
    if !fragment.reasoning.is_empty() {
        let mut delta = json!({});
        add_reasoning(&mut delta, &fragment.reasoning);
        deltas.push(delta);
    }
    let has_other_parts = !fragment.reasoning.is_empty() || !fragment.calls.is_empty();
    if !fragment.text.is_empty() || !has_other_parts {
        deltas.push(json!({"content": fragment.text}));
    }
    let calls = fragment.calls.iter().map(call_delta);
    deltas.extend(calls.map(|call| json!({"tool_calls": [call]})));
    deltas
}

fn call_delta(part: &CallPart) -> Value {
    match part {
        CallPart::Begins { index, id, name } => json!({
            "index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""},
        }),
        CallPart::Arguments { index, text } => json!({"index": index, "function": {"arguments": text}}),
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
                "message": choice.message(),
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

    /// What a fragment says, without its end: one for each chunk, the tokens with the first.
    pub fn parts(
        self,
        index: u32,
        fragment: &Fragment,
        shown: Logprobs,
        vocabulary: &Vocabulary,
    ) -> Vec<Value> {
        let mut logprobs = self.logprobs(&fragment.tokens, shown, vocabulary);
        match self {
            Dialect::Chat => {
                let part = |delta: Value| {
                    let logprobs = logprobs.take();
                    json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null})
                };
                deltas(fragment).into_iter().map(part).collect()
            }
            Dialect::Completion => vec![json!({
                "index": index, "text": fragment.text, "logprobs": logprobs, "finish_reason": null,
            })],
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
