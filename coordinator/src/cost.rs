//! The step-cost model: one fit, used by engine, router and simulator.
//!
//! seconds = fixed + per_token · tokens + per_context · context, where *tokens* are the positions a step computes and
//! *context* is the number of (query, key) pairs its attention reads.

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

/// Older steps count less: after this many steps a measurement weighs 1/e.
const MEMORY_STEPS: f64 = 200.0;
/// The prior weighs as much as this many measurements.
const PRIOR_STEPS: f64 = 1e-4;
/// A step faster than this part of its forecast is taken for a clock's error and counted as this.
const SPEED_UP_MAX: f64 = 0.1;
/// Each measurement moves the warm start a little, so few rounds are enough.
const SWEEPS: usize = 8;

/// Fits [`StepCost`] online: least squares of the *relative* error with exponential forgetting and a weak pull to the
/// prior, solved by coordinate descent with every coefficient held at zero or above. A hiccup that makes one step ten
/// times as long is divided by its own length, so it hardly counts.
///
/// Of the prior only the proportions are believed: it is pulled to as it would be at the pace that was measured. As it stands, it
/// would outweigh dozens of measurements of a device that is many times as slow.
#[derive(Clone, Debug)]
pub struct CostFit {
    cost: [f64; 3],
    prior: [f64; 3],
    /// Decayed sums of x·xᵀ and of x, where x = (1, tokens, context) / seconds.
    moments: [[f64; 3]; 3],
    sums: [f64; 3],
}

impl CostFit {
    pub fn new(prior: StepCost) -> CostFit {
        let cost = [prior.fixed_secs, prior.per_token_secs, prior.per_context_secs];
        CostFit {
            cost,
            prior: cost,
            moments: [[0.0; 3]; 3],
            sums: [0.0; 3],
        }
    }

    pub fn cost(&self) -> StepCost {
        let [fixed_secs, per_token_secs, per_context_secs] = self.cost;
        StepCost {
            fixed_secs,
            per_token_secs,
            per_context_secs,
        }
    }

    pub fn observe(&mut self, work: StepWork, elapsed: Span) {
        let secs = elapsed.as_secs_f64().max(self.cost().secs(work) * SPEED_UP_MAX);
        if secs > 0.0 {
            self.remember([1.0 / secs, work.tokens as f64 / secs, work.context as f64 / secs]);
            let prior = self.prior.map(|cost| cost * self.pace());
            (0..SWEEPS).for_each(|_| self.sweep(&prior));
        }
    }

    fn remember(&mut self, x: [f64; 3]) {
        let keep = 1.0 - 1.0 / MEMORY_STEPS;
        for row in 0..3 {
            self.sums[row] = self.sums[row] * keep + x[row];
            for column in 0..3 {
                self.moments[row][column] = self.moments[row][column] * keep + x[row] * x[column];
            }
        }
    }

    /// How many times as long as the prior says steps take, by least squares of the relative error.
    fn pace(&self) -> f64 {
        let sum = |weights: &[f64; 3]| -> f64 {
            let products = weights.iter().zip(&self.prior);
            products.map(|(weight, cost)| weight * cost).sum()
        };
        let pace = sum(&self.sums) / sum(&self.moments.map(|row| sum(&row)));
        if pace.is_normal() { pace } else { 1.0 }
    }

    fn sweep(&mut self, prior: &[f64; 3]) {
        for (row, prior) in prior.iter().enumerate() {
            let ridge = match *prior > 0.0 {
                true => PRIOR_STEPS / (prior * prior),
                false => 0.0,
            };
            let others: f64 = (0..3)
                .filter(|column| *column != row)
                .map(|column| self.moments[row][column] * self.cost[column])
                .sum();
            let weight = self.moments[row][row] + ridge;
            if weight > 0.0 {
                let pull = self.sums[row] + ridge * prior - others;
                self.cost[row] = (pull / weight).max(0.0);
            }
        }
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

    fn measure(fit: &mut CostFit, start: u32, count: u32, factor: f64) {
        let work = StepWork::slice(start, count);
        fit.observe(work, Span::from_secs_f64(TRUTH.secs(work) * factor));
    }

    fn error(fit: &CostFit, start: u32, count: u32) -> f64 {
        let work = StepWork::slice(start, count);
        (fit.cost().secs(work) / TRUTH.secs(work) - 1.0).abs()
    }

    #[test]
    fn the_fit_finds_the_cost_of_mixed_steps() {
        let mut fit = CostFit::new(StepCost::PRIOR);
        for round in 0..400 {
            measure(&mut fit, (round * 37) % 4000, 1 + (round * 53) % 512, 1.0);
        }
        for (start, count) in [(0, 1), (0, 512), (4000, 1), (2000, 256)] {
            assert!(
                error(&fit, start, count) < 0.01,
                "{start}+{count}: {:?}",
                fit.cost()
            );
        }
    }

    /// What is told of a device before its first request comes from five steps.
    #[test]
    fn a_few_steps_tell_of_devices_of_any_pace() {
        for (fixed_secs, per_token_secs) in [(65e-3, 10e-3), (65e-3, 1e-3), (5e-3, 1.5e-3), (2e-4, 2e-5)] {
            let truth = StepCost {
                fixed_secs,
                per_token_secs,
                per_context_secs: per_token_secs * 1e-4,
            };
            for sequences in [2, 8] {
                let mut fit = CostFit::new(StepCost::PRIOR);
                for (sequences, start, count) in [
                    (1, 8, 1),
                    (1, 9, 1),
                    (sequences, 0, 8),
                    (sequences, 8, 1),
                    (sequences, 9, 1),
                ] {
                    let mut work = StepWork::default();
                    (0..sequences).for_each(|_| work += StepWork::slice(start, count));
                    fit.observe(work, Span::from_secs_f64(truth.secs(work)));
                }
                for tokens in [1, 8, 64] {
                    let work = StepWork { tokens, context: 0 };
                    let off = (fit.cost().secs(work) / truth.secs(work) - 1.0).abs();
                    assert!(off < 0.1, "{tokens} tokens, {truth:?} by {:?}", fit.cost());
                }
            }
        }
    }

    #[test]
    fn one_hiccup_hardly_moves_the_fit() {
        let mut fit = CostFit::new(StepCost::PRIOR);
        for round in 0..400 {
            measure(&mut fit, (round * 37) % 4000, 1 + (round * 53) % 512, 1.0);
        }
        measure(&mut fit, 100, 64, 50.0);
        assert!(error(&fit, 100, 64) < 0.02, "{:?}", fit.cost());
    }

    #[test]
    fn the_fit_follows_a_device_that_slows_down() {
        let mut fit = CostFit::new(StepCost::PRIOR);
        for round in 0..2000 {
            let factor = if round < 1000 { 1.0 } else { 2.0 };
            measure(&mut fit, (round * 37) % 4000, 1 + (round * 53) % 512, factor);
        }
        let work = StepWork::slice(100, 64);
        assert!((fit.cost().secs(work) / TRUTH.secs(work) - 2.0).abs() < 0.05);
    }

    #[test]
    fn coefficients_stay_finite_and_not_negative_whatever_is_measured() {
        let mut fit = CostFit::new(StepCost::PRIOR);
        for round in 0..500_u64 {
            fit.observe(
                StepWork {
                    tokens: round % 3,
                    context: round % 2,
                },
                Span(round * round % 7),
            );
        }
        for value in fit.cost {
            assert!(value.is_finite() && value >= 0.0, "{:?}", fit.cost);
        }
    }

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
