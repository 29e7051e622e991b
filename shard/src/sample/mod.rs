//! From logits to a token: a function of the sampling parameters, the logits, what the stream holds, and the dice.
//!
//! In this order: `logit_bias`; repetition, presence and frequency penalties; what the grammar forbids; stop tokens
//! masked before `min_tokens` and where the grammar may not end; temperature (0: the largest, ties by lowest id);
//! `top_k`; `top_p` of what `top_k` left; `min_p`; one throw of the dice. Scores are of the raw logits.
//!
//! A grammar whose text is complete and can only end does end, also before `min_tokens`.

mod counts;
mod dice;
mod ladder;
mod score;
mod softmax;

pub use counts::TokenCounts;
pub use dice::Dice;
pub use score::score;

pub(crate) use counts::penalises;

use crate::constraint::{Constraint, GrammarEnd, Mask, TokenMask};
use ladder::Ladder;
use proto::Position;
use proto::engine::TokenScore;
use proto::request::Sampling;
use proto::step::Verdict;
use score::score_finite;
use softmax::{exponentials, finite_max, max};
use std::sync::Arc;

/// All that decides a token besides its logits.
#[derive(Clone, Debug)]
pub struct SampleRequest {
    pub sampling: Arc<Sampling>,
    pub counts: Arc<TokenCounts>,
    pub choice: u32,
    /// Where the token will stand in the stream's output.
    pub position: Position,
    pub constraint: Option<Arc<dyn Constraint>>,
}

/// A chosen token.
#[derive(Clone, PartialEq, Debug)]
pub struct SampledToken {
    /// Means something only when the verdict is [`Verdict::Continue`] or [`Verdict::Stop`].
    pub id: u32,
    /// Where `Sampling::logprobs` asked for it.
    pub score: Option<TokenScore>,
    pub verdict: Verdict,
}

impl SampledToken {
    fn none(verdict: Verdict) -> SampledToken {
        SampledToken {
            id: 0,
            score: None,
            verdict,
        }
    }
}

impl SampleRequest {
    /// What the grammar allows, if there is one; or the verdict of a position at which nothing is to be chosen.
    fn mask(&self) -> Result<Option<Arc<TokenMask>>, Verdict> {
        let Some(constraint) = &self.constraint else {
            return Ok(None);
        };
        match constraint.mask(self.position) {
            Mask::Ready(mask) if mask.end() == GrammarEnd::Due => Err(Verdict::Complete),
            Mask::Ready(mask) => Ok(Some(mask)),
            Mask::Late => Err(Verdict::Wait),
            Mask::Failed => Err(Verdict::Unguided),
        }
    }

    /// Where the grammar leaves no choice there is none to make.
    fn forced(&self, mask: &TokenMask, logits: &[f32]) -> Option<u32> {
        let only = mask.only().filter(|token| (*token as usize) < logits.len())?;
        (mask.end() == GrammarEnd::NotYet).then_some(only)
    }

    /// Where the grammar may end, or asks for the very token: what a request stops at may be a part of its grammar.
    fn may_stop_at(&self, token: u32, mask: Option<&TokenMask>) -> bool {
        let is_allowed = mask.is_none_or(|mask| mask.end() == GrammarEnd::Allowed || mask.allows(token));
        is_allowed && !too_early_to_stop(self)
    }
}

/// Chooses tokens. Keeps only room to work in from call to call.
#[derive(Default)]
pub struct Sampler {
    adjusted: Vec<f32>,
    /// Those of the stop tokens that may be chosen.
    stop_logits: Vec<(u32, f32)>,
    weights: Vec<f32>,
    ladder: Ladder,
}

/// Below this a temperature would only overflow; the result is that of the largest logit anyway.
const TEMPERATURE_MIN: f32 = 1e-5;

impl Sampler {
    /// `logits` are of the whole vocabulary. Tokens outside of it in biases and stop lists are ignored.
    pub fn choose(&mut self, request: &SampleRequest, logits: &[f32]) -> SampledToken {
        let Some(raw_max) = finite_max(logits) else {
            return SampledToken::none(Verdict::Broken);
        };
        let mask = match request.mask() {
            Ok(mask) => mask,
            Err(verdict) => return SampledToken::none(verdict),
        };
        let Some(id) = self.choose_id(request, mask.as_deref(), logits, raw_max) else {
            return SampledToken::none(Verdict::Unguided);
        };
        let sampling = &request.sampling;
        SampledToken {
            id,
            score: sampling
                .logprobs
                .map(|top| score_finite(logits, raw_max, id, top)),
            verdict: if sampling.stop_tokens.contains(&id) {
                Verdict::Stop
            } else {
                Verdict::Continue
            },
        }
    }

    /// `None`: no token is left to choose from.
    fn choose_id(
        &mut self,
        request: &SampleRequest,
        mask: Option<&TokenMask>,
        logits: &[f32],
        raw_max: f32,
    ) -> Option<u32> {
        if let Some(only) = mask.and_then(|mask| request.forced(mask, logits)) {
            return Some(only);
        }
        if mask.is_none() && !adjusts(request) {
            return Some(self.throw(request, logits, raw_max));
        }
        self.adjust(request, mask, logits);
        let adjusted = std::mem::take(&mut self.adjusted);
        let max = max(&adjusted);
        let is_any_left = mask.is_none() || max > f32::NEG_INFINITY;
        let id = is_any_left.then(|| self.throw(request, &adjusted, max));
        self.adjusted = adjusted;
        id
    }

    fn adjust(&mut self, request: &SampleRequest, mask: Option<&TokenMask>, logits: &[f32]) {
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        for (token, bias) in &request.sampling.logit_bias {
            if let Some(logit) = self.adjusted.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        request.counts.penalise(&request.sampling, &mut self.adjusted);
        let stop_tokens = &request.sampling.stop_tokens;
        self.stop_logits.clear();
        let logits = stop_tokens
            .iter()
            .filter(|token| request.may_stop_at(**token, mask))
            .filter_map(|token| Some((*token, *self.adjusted.get(*token as usize)?)));
        self.stop_logits.extend(logits);
        if let Some(mask) = mask {
            mask.apply(&mut self.adjusted);
        }
        for token in stop_tokens {
            if let Some(logit) = self.adjusted.get_mut(*token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        for (token, logit) in &self.stop_logits {
            self.adjusted[*token as usize] = *logit;
        }
    }

    fn throw(&mut self, request: &SampleRequest, logits: &[f32], max: f32) -> u32 {
        let sampling = &request.sampling;
        if sampling.temperature == 0.0 || !max.is_finite() {
            return first_of(logits, max);
        }
        let dice = Dice {
            seed: sampling.seed,
            choice: request.choice,
            position: request.position.0,
            draw: 0,
        };
        let scale = 1.0 / sampling.temperature.max(TEMPERATURE_MIN);
        let total = exponentials(logits, max, scale, &mut self.weights);
        match truncates(sampling) {
            true => {
                self.ladder.fill(logits, &self.weights);
                let kept = self.count_kept(sampling);
                let target = dice.throw() * self.ladder.mass_of(kept);
                let place = self.ladder.count_to_mass(target).clamp(1, kept) - 1;
                self.ladder.token(place)
            }
            false => pick((0..).zip(self.weights.iter().copied()), dice.throw() * total),
        }
    }

    /// How many of the heaviest tokens `top_k`, `top_p` and `min_p` keep; at least one.
    fn count_kept(&mut self, sampling: &Sampling) -> usize {
        let mut kept = self.ladder.count();
        if sampling.top_k > 0 {
            kept = kept.min(sampling.top_k as usize);
        }
        if sampling.top_p < 1.0 {
            let enough = f64::from(sampling.top_p) * self.ladder.mass_of(kept);
            kept = kept.min(self.ladder.count_to_mass(enough));
        }
        kept.min(self.ladder.count_at_least(sampling.min_p)).max(1)
    }
}

fn too_early_to_stop(request: &SampleRequest) -> bool {
    request.position.0 < request.sampling.min_tokens
}

fn adjusts(request: &SampleRequest) -> bool {
    !request.sampling.logit_bias.is_empty() || penalises(&request.sampling) || too_early_to_stop(request)
}

fn truncates(sampling: &Sampling) -> bool {
    sampling.top_k > 0 || sampling.top_p < 1.0 || sampling.min_p > 0.0
}

fn first_of(logits: &[f32], max: f32) -> u32 {
    logits.iter().position(|logit| *logit == max).unwrap_or(0) as u32
}

/// The token within whose weight the running sum passes `target`; by rounding's leave the last that has weight.
fn pick(weights: impl Iterator<Item = (u32, f32)>, target: f64) -> u32 {
    let mut sum = 0.0;
    let mut last = 0;
    for (token, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        sum += f64::from(weight);
        last = token;
        if sum > target {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests;
