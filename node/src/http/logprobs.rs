//! Log-probabilities in the two forms that OpenAI's interface has for them.
//!
//! A value is written from the same f32 wherever it appears, so that clients may compare for equality.

use super::choice::ScoredToken;
use crate::text::Vocabulary;
use proto::engine::TokenScore;
use serde_json::{Map, Value, json};

/// How tokens are named in logprobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenNames {
    Text,
    /// `token_id:123`: no two tokens share a name.
    Ids,
}

impl TokenNames {
    fn name(self, id: u32, vocabulary: &Vocabulary) -> String {
        match self {
            TokenNames::Text => vocabulary.text(id),
            TokenNames::Ids => format!("token_id:{id}"),
        }
    }
}

/// JSON has no infinities; this is what vLLM writes for "impossible".
const LOWEST: f32 = -9999.0;

fn number(logprob: f32) -> Value {
    let finite = if logprob.is_finite() { logprob } else { LOWEST };
    json!(f64::from(finite))
}

/// `choices[].logprobs` of chat; tokens without a score are left out.
pub fn chat(tokens: &[ScoredToken], names: TokenNames, vocabulary: &Vocabulary) -> Value {
    let content: Vec<Value> = tokens
        .iter()
        .filter_map(|token| chat_entry(token, names, vocabulary))
        .collect();
    json!({"content": content, "refusal": null})
}

fn chat_entry(token: &ScoredToken, names: TokenNames, vocabulary: &Vocabulary) -> Option<Value> {
    let score = token.score.as_ref()?;
    let top: Vec<Value> = score
        .top
        .iter()
        .map(|(id, logprob)| chat_token(*id, *logprob, names, vocabulary))
        .collect();
    let mut entry = chat_token(token.id, score.logprob, names, vocabulary);
    entry["top_logprobs"] = Value::Array(top);
    Some(entry)
}

fn chat_token(id: u32, logprob: f32, names: TokenNames, vocabulary: &Vocabulary) -> Value {
    json!({"token": names.name(id, vocabulary), "logprob": number(logprob), "bytes": vocabulary.bytes(id)})
}

/// `choices[].logprobs` of completions; a token without a score has `null`s.
pub fn completion(tokens: &[ScoredToken], names: TokenNames, vocabulary: &Vocabulary) -> Value {
    let name = |token: &ScoredToken| names.name(token.id, vocabulary);
    let logprob = |token: &ScoredToken| token.score.as_ref().map(|score| number(score.logprob));
    json!({
        "tokens": tokens.iter().map(name).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(|token| completion_top(token, names, vocabulary)).collect::<Vec<_>>(),
        "text_offset": tokens.iter().map(|token| token.offset).collect::<Vec<_>>(),
    })
}

/// `prompt_logprobs`, as vLLM writes it: for each token of the prompt an object from token ids to scores, ranks from 1;
/// `null` for the first token, which nothing comes before.
pub fn prompt(scores: &[TokenScore], top_max: usize, vocabulary: &Vocabulary) -> Value {
    let scores = scores
        .iter()
        .map(|score| prompt_entry(score, top_max, vocabulary));
    std::iter::once(Value::Null).chain(scores).collect()
}

fn prompt_entry(score: &TokenScore, top_max: usize, vocabulary: &Vocabulary) -> Value {
    let top = score.top.iter().take(top_max).zip(0..);
    let own = ((score.token, score.logprob), score.rank);
    let mut entry = Map::new();
    for ((id, logprob), rank) in top.map(|(best, rank)| (*best, rank)).chain([own]) {
        entry.entry(id.to_string()).or_insert_with(
            || json!({"logprob": number(logprob), "rank": rank + 1, "decoded_token": vocabulary.text(id)}),
        );
    }
    Value::Object(entry)
}

/// The best tokens and the token itself. Where two have the same text, the better one's value stands.
fn completion_top(token: &ScoredToken, names: TokenNames, vocabulary: &Vocabulary) -> Value {
    let Some(score) = &token.score else {
        return Value::Null;
    };
    let mut top = Map::new();
    let own = [(token.id, score.logprob)];
    for (id, logprob) in score.top.iter().chain(&own) {
        top.entry(names.name(*id, vocabulary))
            .or_insert_with(|| number(*logprob));
    }
    Value::Object(top)
}
