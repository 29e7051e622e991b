//! How long a sequence will become, judged by those that ended lately.

use std::collections::VecDeque;

/// How many finished sequences are remembered.
const REMEMBERED: usize = 128;
/// Assumed while fewer than [`EVIDENCE_MIN`] ended sequences speak about a length.
const PRIOR_TOKENS: u32 = 128;
const EVIDENCE_MIN: usize = 4;

/// A running quantile of output lengths, conditional on how long the output already is.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutputForecast {
    /// In order of arrival, to know which to forget.
    recent: VecDeque<u32>,
    /// The same values, ascending.
    sorted: Vec<u32>,
}

impl OutputForecast {
    /// A sequence ended by itself after `output_tokens`. Cancelled ones say nothing about length.
    pub fn observe(&mut self, output_tokens: u32) {
        if self.recent.len() == REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
            && let Ok(at) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(at);
        }
        self.recent.push_back(output_tokens);
        let at = self.sorted.partition_point(|length| *length < output_tokens);
        self.sorted.insert(at, output_tokens);
    }

    /// How many tokens a sequence that already made `output_tokens` will still make: the upper quartile of the
    /// remembered lengths above that. Where too few are known, it is taken to double.
    pub fn remaining(&self, output_tokens: u32) -> u32 {
        let longer = &self.sorted[self.sorted.partition_point(|length| *length <= output_tokens)..];
        if longer.len() < EVIDENCE_MIN {
            return output_tokens.max(PRIOR_TOKENS);
        }
        longer[longer.len() * 3 / 4] - output_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_evidence_the_prior_speaks() {
        assert_eq!(OutputForecast::default().remaining(0), PRIOR_TOKENS);
        assert_eq!(OutputForecast::default().remaining(1000), 1000);
    }

    #[test]
    fn a_sequence_that_outlived_the_short_ones_is_compared_with_the_long_ones() {
        let mut forecast = OutputForecast::default();
        (0..64).for_each(|_| forecast.observe(10));
        (0..64).for_each(|_| forecast.observe(500));
        assert_eq!(forecast.remaining(20), 480);
        (0..128).for_each(|_| forecast.observe(10));
        assert_eq!(forecast.remaining(0), 10, "the oldest are forgotten");
    }
}
