//! How the next token is chosen, as a client writes it.

use super::error::ApiError;
use super::request::{Number, Shared, TokenIds};
use crate::text::{TextModel, Vocabulary};
use proto::request::Sampling;

const STOP_TOKENS_MAX: usize = 128;
const REPETITION_PENALTY_MIN: f32 = 0.01;

/// Everything but the log-probabilities, which chat and completions write in their own ways.
pub fn sampling(shared: &Shared, text: &TextModel) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        seed: seed(shared),
        temperature: shared.temperature.map_or(1.0, Number::get),
        top_p: top_p(shared)?,
        // -1, as in vLLM, means the same as 0: keep everything.
        top_k: shared.top_k.map_or(0, |top_k| top_k.get().max(0) as u32),
        min_p: shared.min_p.map_or(0.0, Number::get),
        presence_penalty: shared.presence_penalty.map_or(0.0, Number::get),
        frequency_penalty: shared.frequency_penalty.map_or(0.0, Number::get),
        repetition_penalty: repetition_penalty(shared)?,
        logit_bias: logit_bias(shared, text.vocabulary())?,
        stop_tokens: stop_tokens(shared, text)?,
        min_tokens: shared.min_tokens.map_or(0, |tokens| tokens.get() as u32),
        logprobs: None,
        prompt_logprobs: shared.prompt_logprobs.map(|count| count.get() as u8),
        grammar: None,
    })
}

/// The client's, or one drawn now and kept for the life of the request.
fn seed(shared: &Shared) -> u64 {
    match shared.seed {
        Some(seed) => seed.0,
        None => getrandom::u64().expect("the operating system has no randomness"),
    }
}

fn top_p(shared: &Shared) -> Result<f32, ApiError> {
    match shared.top_p.map_or(1.0, Number::get) {
        top_p if top_p > 0.0 => Ok(top_p),
        _zero => Err(ApiError::invalid(
            "top_p",
            "`top_p` must be above 0; for greedy decoding set `temperature` to 0",
        )),
    }
}

fn repetition_penalty(shared: &Shared) -> Result<f32, ApiError> {
    match shared.repetition_penalty.map_or(1.0, Number::get) {
        penalty if penalty >= REPETITION_PENALTY_MIN => Ok(penalty),
        _too_small => Err(ApiError::invalid(
            "repetition_penalty",
            format!("`repetition_penalty` must be at least {REPETITION_PENALTY_MIN}"),
        )),
    }
}

fn stop_tokens(shared: &Shared, text: &TextModel) -> Result<Vec<u32>, ApiError> {
    let mut tokens = match shared.ignore_eos.unwrap_or(false) {
        true => Vec::new(),
        false => text.end_tokens().to_vec(),
    };
    if let Some(TokenIds(ids)) = &shared.stop_token_ids {
        known_tokens("stop_token_ids", ids, text.vocabulary())?;
        tokens.extend(ids);
    }
    if tokens.len() > STOP_TOKENS_MAX {
        let message = format!("`stop_token_ids` has more than {STOP_TOKENS_MAX} entries");
        return Err(ApiError::invalid("stop_token_ids", message));
    }
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

/// Refuses ids that the vocabulary does not have.
pub fn known_tokens(param: &str, ids: &[u32], vocabulary: &Vocabulary) -> Result<(), ApiError> {
    match ids.iter().all(|id| vocabulary.contains(*id)) {
        true => Ok(()),
        false => {
            let last = vocabulary.len().saturating_sub(1);
            Err(ApiError::invalid(
                param,
                format!("`{param}` must hold token ids from 0 to {last}"),
            ))
        }
    }
}

fn logit_bias(shared: &Shared, vocabulary: &Vocabulary) -> Result<Vec<(u32, f32)>, ApiError> {
    let biases = shared.logit_bias.clone().unwrap_or_default().0;
    let ids: Vec<u32> = biases.iter().map(|(id, _)| *id).collect();
    known_tokens("logit_bias", &ids, vocabulary)?;
    Ok(biases)
}
