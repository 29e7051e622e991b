//! From logits to a token: a function of the sampling parameters, the logits, what the stream holds, and the dice.
//!
//! In this order: `logit_bias`; repetition, presence and frequency penalties; stop tokens masked before `min_tokens`;
//! temperature (0: the largest, ties by lowest id); `top_k`; `top_p` of what `top_k` left; `min_p`; one throw of the
//! dice. Scores are of the raw logits.

mod counts;
mod dice;
mod score;
mod softmax;

pub use counts::TokenCounts;
pub use dice::Dice;
pub use score::score;

pub(crate) use counts::penalises;

use proto::Position;
use proto::engine::TokenScore;
use proto::request::Sampling;
use proto::step::Verdict;
use score::score_finite;
use softmax::{exponentials, finite_max, max};
use std::sync::Arc;

/// All that decides a token besides its logits.
#[derive(Clone, PartialEq, Debug)]
pub struct SampleRequest {
    pub sampling: Arc<Sampling>,
    pub counts: Arc<TokenCounts>,
    pub choice: u32,
    /// Where the token will stand in the stream's output.
    pub position: Position,
}

/// A chosen token.
#[derive(Clone, PartialEq, Debug)]
pub struct SampledToken {
    /// Means nothing when the verdict is [`Verdict::Broken`].
    pub id: u32,
    /// Where `Sampling::logprobs` asked for it.
    pub score: Option<TokenScore>,
    pub verdict: Verdict,
}

/// Chooses tokens. Keeps only room to work in from call to call.
#[derive(Default)]
pub struct Sampler {
    adjusted: Vec<f32>,
    weights: Vec<f32>,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy)]
struct Candidate {
    weight: f32,
    logit: f32,
    token: u32,
}

/// Below this a temperature would only overflow; the result is that of the largest logit anyway.
const TEMPERATURE_MIN: f32 = 1e-5;
/// How far below the largest logit, in units of temperature, candidates are looked for: a step further when the ones
/// before were too few. Beyond the last one weights are 0.
const REACHES: [f32; 4] = [6.0, 12.0, 24.0, 88.0];

impl Sampler {
    /// `logits` are of the whole vocabulary. Tokens outside of it in biases and stop lists are ignored.
    pub fn choose(&mut self, request: &SampleRequest, logits: &[f32]) -> SampledToken {
        let Some(raw_max) = finite_max(logits) else {
            return SampledToken {
                id: 0,
                score: None,
                verdict: Verdict::Broken,
            };
        };
        let sampling = &request.sampling;
        let id = match adjusts(request) {
            true => {
                self.adjust(request, logits);
                let adjusted = std::mem::take(&mut self.adjusted);
                let id = self.throw(request, &adjusted, max(&adjusted));
                self.adjusted = adjusted;
                id
            }
            false => self.throw(request, logits, raw_max),
        };
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

    fn adjust(&mut self, request: &SampleRequest, logits: &[f32]) {
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        for (token, bias) in &request.sampling.logit_bias {
            if let Some(logit) = self.adjusted.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        request.counts.penalise(&request.sampling, &mut self.adjusted);
        if too_early_to_stop(request) {
            for token in &request.sampling.stop_tokens {
                if let Some(logit) = self.adjusted.get_mut(*token as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
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
                self.keep_best(sampling, logits, total);
                let mass = self
                    .candidates
                    .iter()
                    .map(|candidate| f64::from(candidate.weight))
                    .sum::<f64>();
                let kept = self
                    .candidates
                    .iter()
                    .map(|candidate| (candidate.token, candidate.weight));
                pick(kept, dice.throw() * mass)
            }
            false => pick((0..).zip(self.weights.iter().copied()), dice.throw() * total),
        }
    }

    /// Leaves in `candidates` what `top_k`, `top_p` and `min_p` keep, best first, as if all had been sorted.
    fn keep_best(&mut self, sampling: &Sampling, logits: &[f32], total: f64) {
        for reach in REACHES {
            self.gather(logits, (-reach).exp());
            if self.truncate(sampling, total) {
                return;
            }
        }
    }

    /// Orders by weight; weights that rounding made equal by logit; equal logits by token.
    fn gather(&mut self, logits: &[f32], weight_min: f32) {
        self.candidates.clear();
        for (token, (weight, logit)) in (0..).zip(self.weights.iter().zip(logits)) {
            if *weight >= weight_min {
                self.candidates.push(Candidate {
                    weight: *weight,
                    logit: *logit,
                    token,
                });
            }
        }
        self.candidates.sort_unstable_by(|a, b| {
            let by_logit = || b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
            b.weight.total_cmp(&a.weight).then_with(by_logit)
        });
    }

    /// False when lighter tokens than those gathered might be kept as well.
    fn truncate(&mut self, sampling: &Sampling, total: f64) -> bool {
        let top_k = if sampling.top_k == 0 {
            usize::MAX
        } else {
            sampling.top_k as usize
        };
        let mut complete = self.candidates.len() >= top_k;
        self.candidates.truncate(top_k);
        if sampling.top_p < 1.0 {
            let mass = self
                .candidates
                .iter()
                .map(|candidate| f64::from(candidate.weight))
                .sum::<f64>();
            let whole = if complete || top_k != usize::MAX {
                mass
            } else {
                total
            };
            let enough = f64::from(sampling.top_p) * whole;
            // With a top_k that is not yet full, the mass it will hold is not known either.
            complete |= top_k == usize::MAX && mass >= enough;
            let kept = self.count_to_mass(enough);
            self.candidates.truncate(kept);
        }
        let kept = self
            .candidates
            .partition_point(|candidate| candidate.weight >= sampling.min_p);
        complete |= kept < self.candidates.len();
        self.candidates.truncate(kept);
        complete
    }

    /// How many of the best hold at least `enough`; at least one.
    fn count_to_mass(&self, enough: f64) -> usize {
        let mut mass = 0.0;
        let reaches = |candidate: &Candidate| {
            mass += f64::from(candidate.weight);
            mass >= enough
        };
        self.candidates
            .iter()
            .position(reaches)
            .map_or(self.candidates.len(), |last| last + 1)
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
