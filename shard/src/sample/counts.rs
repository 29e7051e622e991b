use proto::request::Sampling;
use std::collections::{BTreeMap, BTreeSet};

/// What a stream already holds, as far as penalties ask.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenCounts {
    prompt: BTreeSet<u32>,
    output: BTreeMap<u32, u32>,
}

impl TokenCounts {
    /// Of a stream that may have output already (a resumed one). Empty when no penalty would look at it.
    pub fn new(sampling: &Sampling, prompt: &[u32], output: &[u32]) -> Self {
        let mut counts = TokenCounts::default();
        if penalises(sampling) {
            counts.prompt.extend(prompt);
            output.iter().for_each(|token| counts.add_output(*token));
        }
        counts
    }

    pub fn add_output(&mut self, token: u32) {
        *self.output.entry(token).or_default() += 1;
    }

    /// Applies the penalties to logits. Repetition looks at prompt and output, the others at output alone.
    pub(super) fn penalise(&self, sampling: &Sampling, logits: &mut [f32]) {
        for token in self
            .prompt
            .iter()
            .chain(self.output.keys().filter(|token| !self.prompt.contains(token)))
        {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = repeated(*logit, sampling.repetition_penalty);
            }
        }
        for (token, count) in &self.output {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit -= sampling.presence_penalty + sampling.frequency_penalty * *count as f32;
            }
        }
    }
}

pub(crate) fn penalises(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0
        || sampling.presence_penalty != 0.0
        || sampling.frequency_penalty != 0.0
}

fn repeated(logit: f32, penalty: f32) -> f32 {
    if logit > 0.0 {
        logit / penalty
    } else {
        logit * penalty
    }
}
