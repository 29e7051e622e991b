//! How the next token is chosen, as a client writes it.

use super::error::ApiError;
use super::fields::Fields;
use crate::text::{TextModel, Vocabulary};
use proto::request::Sampling;
use serde_json::Value;

const STOP_TOKENS_MAX: usize = 128;
const BIASES_MAX: usize = 1024;
/// Also the bound of the seam: logprobs are counted in a `u8`.
pub const TOP_LOGPROBS_MAX: i64 = 20;

/// Everything but the log-probabilities, which chat and completions write in their own ways.
pub fn sampling(fields: &Fields, text: &TextModel) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        seed: seed(fields)?,
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0),
        top_p: top_p(fields)?,
        top_k: top_k(fields)?,
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        repetition_penalty: fields.number("repetition_penalty", 0.01..=100.0)?.unwrap_or(1.0),
        logit_bias: logit_bias(fields, text.vocabulary())?,
        stop_tokens: stop_tokens(fields, text)?,
        min_tokens: fields.integer("min_tokens", 0..=u32::MAX.into())?.unwrap_or(0) as u32,
        logprobs: None,
        prompt_logprobs: None,
    })
}

/// The client's, or one drawn now and kept for the life of the request.
fn seed(fields: &Fields) -> Result<u64, ApiError> {
    match fields.get("seed") {
        None => Ok(getrandom::u64().expect("the operating system has no randomness")),
        Some(value) => {
            let seed = value
                .as_u64()
                .or_else(|| value.as_i64().map(|negative| negative as u64));
            seed.ok_or_else(|| ApiError::invalid("seed", "`seed` must be an integer of at most 64 bits"))
        }
    }
}

fn top_p(fields: &Fields) -> Result<f32, ApiError> {
    match fields.number("top_p", 0.0..=1.0)? {
        Some(0.0) => Err(ApiError::invalid(
            "top_p",
            "`top_p` must be above 0; for greedy decoding set `temperature` to 0",
        )),
        Some(top_p) => Ok(top_p),
        None => Ok(1.0),
    }
}

/// -1, as in vLLM, means the same as 0: keep everything.
fn top_k(fields: &Fields) -> Result<u32, ApiError> {
    let top_k = fields.integer("top_k", -1..=u32::MAX.into())?.unwrap_or(0);
    Ok(top_k.max(0) as u32)
}

fn stop_tokens(fields: &Fields, text: &TextModel) -> Result<Vec<u32>, ApiError> {
    let mut tokens = match fields.flag("ignore_eos")?.unwrap_or(false) {
        true => Vec::new(),
        false => text.end_tokens().to_vec(),
    };
    if let Some(ids) = fields.list("stop_token_ids")? {
        tokens.extend(token_ids("stop_token_ids", ids, text.vocabulary())?);
    }
    if tokens.len() > STOP_TOKENS_MAX {
        let message = format!("`stop_token_ids` has more than {STOP_TOKENS_MAX} entries");
        return Err(ApiError::invalid("stop_token_ids", message));
    }
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

/// Token ids of a list, each inside the vocabulary.
pub fn token_ids(param: &str, ids: &[Value], vocabulary: &Vocabulary) -> Result<Vec<u32>, ApiError> {
    ids.iter()
        .map(|id| token_id(param, id.as_u64(), vocabulary))
        .collect()
}

fn token_id(param: &str, id: Option<u64>, vocabulary: &Vocabulary) -> Result<u32, ApiError> {
    let known = id
        .and_then(|id| u32::try_from(id).ok())
        .filter(|id| vocabulary.contains(*id));
    known.ok_or_else(|| {
        let message = format!(
            "`{param}` must hold token ids from 0 to {}",
            vocabulary.len().saturating_sub(1)
        );
        ApiError::invalid(param, message)
    })
}

fn logit_bias(fields: &Fields, vocabulary: &Vocabulary) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = fields.object("logit_bias")? else {
        return Ok(Vec::new());
    };
    if biases.len() > BIASES_MAX {
        let message = format!("`logit_bias` has more than {BIASES_MAX} entries");
        return Err(ApiError::invalid("logit_bias", message));
    }
    let mut converted = Vec::with_capacity(biases.len());
    for (id, bias) in biases {
        let id = token_id("logit_bias", id.parse().ok(), vocabulary)?;
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let message = "`logit_bias` must map token ids to numbers from -100 to 100";
        converted.push((
            id,
            bias.ok_or_else(|| ApiError::invalid("logit_bias", message))? as f32,
        ));
    }
    converted.sort_by_key(|(id, _)| *id);
    Ok(converted)
}
