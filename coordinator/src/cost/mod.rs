//! The step-cost model: one fit, used by engine, router and simulator.
//!
//! seconds = fixed + per_token · tokens + per_context · context, where *tokens* are the positions a step computes and
//! *context* is the number of (query, key) pairs its attention reads.

mod fit;

pub use fit::CostFit;

use proto::Span;
use proto::engine::Load;

/// How long a step takes, as three coefficients in seconds; none is negative.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct StepCost {
    pub fixed_secs: f64,
    pub per_token_secs: f64,
    pub per_context_secs: f64,
}

/// What a step has to do, in the units of [`StepCost`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StepWork {
    pub tokens: u64,
    pub context: u64,
}

/// What is waiting for a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backlog {
    pub prompt_tokens: u64,
    pub sequences: u32,
    pub output_tokens_each: u32,
    /// How many sequences are computed side by side.
    pub batch: u32,
}

impl StepCost {
    /// A slow processor: a first plan that is too small costs little, one that is too large stalls everybody.
    pub const PRIOR: StepCost = StepCost {
        fixed_secs: 2e-3,
        per_token_secs: 1e-3,
        per_context_secs: 1e-7,
    };

    pub fn of_load(load: &Load) -> StepCost {
        StepCost {
            fixed_secs: load.step_fixed_secs,
            per_token_secs: load.step_per_token_secs,
            per_context_secs: load.step_per_context_secs,
        }
    }

    /// Of a step that is computed here and there, one after the other.
    pub fn then(self, other: StepCost) -> StepCost {
        StepCost {
            fixed_secs: self.fixed_secs + other.fixed_secs,
            per_token_secs: self.per_token_secs + other.per_token_secs,
            per_context_secs: self.per_context_secs + other.per_context_secs,
        }
    }

    pub fn secs(&self, work: StepWork) -> f64 {
        self.fixed_secs + self.marginal_secs(work)
    }

    /// What `work` adds to a step that runs anyway.
    pub fn marginal_secs(&self, work: StepWork) -> f64 {
        self.per_token_secs * work.tokens as f64 + self.per_context_secs * work.context as f64
    }

    /// The longest slice from position `start` on that adds at most `secs` to a step. Solves
    /// `per_token · n + per_context · (start · n + n(n+1)/2) = secs` in the form that loses no digits.
    pub fn tokens_within(&self, secs: f64, start: u32) -> u32 {
        if secs <= 0.0 {
            return 0;
        }
        let quadratic = self.per_context_secs / 2.0;
        let linear = self.per_token_secs + self.per_context_secs * (f64::from(start) + 0.5);
        let divisor = linear + (linear * linear + 4.0 * quadratic * secs).sqrt();
        if divisor == 0.0 {
            u32::MAX
        } else {
            (2.0 * secs / divisor) as u32
        }
    }

    /// How long until `backlog` has been worked off, if nothing more came.
    pub fn drain(&self, backlog: Backlog) -> Span {
        let batch = backlog.batch.max(1);
        let rounds = f64::from(backlog.sequences.div_ceil(batch));
        let step_secs = self.fixed_secs + self.per_token_secs * f64::from(batch);
        let prompt_secs = self.per_token_secs * backlog.prompt_tokens as f64;
        Span::from_secs_f64(prompt_secs + rounds * f64::from(backlog.output_tokens_each) * step_secs)
    }
}

impl StepWork {
    /// `count` positions after `start` earlier ones: position p reads p + 1 keys.
    pub fn slice(start: u32, count: u32) -> StepWork {
        let (start, count) = (u64::from(start), u64::from(count));
        StepWork {
            tokens: count,
            context: start * count + count * (count + 1) / 2,
        }
    }
}

impl std::ops::AddAssign for StepWork {
    fn add_assign(&mut self, other: StepWork) {
        self.tokens += other.tokens;
        self.context += other.context;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: StepCost = StepCost {
        fixed_secs: 4e-3,
        per_token_secs: 3e-4,
        per_context_secs: 2e-8,
    };

    #[test]
    fn tokens_within_is_the_largest_slice_that_fits() {
        for start in [0, 1000, 100_000] {
            for secs in [1e-4, 1e-3, 5e-2, 1.0] {
                let count = TRUTH.tokens_within(secs, start);
                assert!(TRUTH.marginal_secs(StepWork::slice(start, count)) <= secs * (1.0 + 1e-9));
                assert!(TRUTH.marginal_secs(StepWork::slice(start, count + 1)) > secs * (1.0 - 1e-9));
            }
        }
    }

    #[test]
    fn a_device_that_costs_nothing_takes_any_slice() {
        let free = StepCost {
            fixed_secs: 0.0,
            per_token_secs: 0.0,
            per_context_secs: 0.0,
        };
        assert_eq!(free.tokens_within(1.0, 5), u32::MAX);
        assert_eq!(free.tokens_within(0.0, 5), 0);
    }
}
