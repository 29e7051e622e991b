//! Finding out what steps cost, from how long they took.

use super::{StepCost, StepWork};
use proto::Span;

/// Of steps of about the same size, older ones count less: after this many more a measurement weighs 1/e.
const MEMORY_STEPS: f64 = 100.0;
/// While steps of one size are measured, what is known of others fades no further than to so many measurements: many steps of one size say
/// what that size costs, and nothing of what part of it is fixed.
const KEPT_STEPS: f64 = 5.0;
/// A step that takes this many times as long as forecast, or as short, was interrupted, or the device's pace has changed.
const UNEXPECTED: f64 = 1.5;
/// So many in a row, all longer or all shorter, are no interruptions.
const CHANGED_STEPS: i32 = 3;
/// What is left after each further one of what is known of other sizes.
const TRUST: f64 = 0.7;
/// But so much stays, since steps of one size still say nothing of others; the next that is measured there outweighs it.
const DOUBTED_STEPS: f64 = 0.2;
/// Each coefficient of the prior weighs as much as this many measurements. Short steps say little of the context, and nothing while
/// there is little of it.
const PRIOR_STEPS: [f64; 3] = [1e-4, 1e-4, 1e-2];
/// A step faster than this part of its forecast is taken for a clock's error and counted as this.
const SPEED_UP_MAX: f64 = 0.1;
/// Each measurement moves the warm start a little, so few rounds are enough.
const SWEEPS: usize = 8;
/// Steps of 1, 2 to 3, 4 to 7 … tokens; the last has all that are longer.
const SIZES: usize = 12;
/// Of such sizes are the steps by which a cost is told that was measured before.
const TOLD_TOKENS: [u32; 3] = [1, 8, 64];
/// How many measurements each of them stands for.
const TOLD_STEPS: f64 = 5.0;
/// No token costs less than this part of what is fixed, and no step a second's millionth or more than hours: what was measured so was
/// disturbed.
const TOKEN_LEAST: f64 = 1e-3;
const STEP_SECS: std::ops::Range<f64> = 1e-6..1e4;

/// Fits [`StepCost`] online: least squares of the *relative* error with exponential forgetting and a weak pull to the
/// prior, solved by coordinate descent with every coefficient held at zero or above. A hiccup that makes one step ten
/// times as long is divided by its own length, so it hardly counts.
///
/// Steps are remembered by their size. While streams only decode, nothing else is learnt, and what was known of prompts stays: a fit of
/// the last steps alone was off by five times when the next prompt came. Only a change of pace ends it.
///
/// Of the prior only the proportions are believed: it is pulled to as it would be at the pace that was measured.
#[derive(Clone, Debug)]
pub struct CostFit {
    cost: [f64; 3],
    prior: [f64; 3],
    /// Of steps of each size.
    evidence: [Evidence; SIZES],
    /// What was measured before, until steps of that size or more are.
    told: [Evidence; TOLD_TOKENS.len()],
    /// Unexpected steps in a row: longer ones above zero, shorter ones below.
    unexpected: i32,
}

/// Measured steps: decayed sums of 1, of x and of x·xᵀ, where x = (1, tokens, context) / seconds.
#[derive(Clone, Copy, Default, Debug)]
struct Evidence {
    steps: f64,
    sums: [f64; 3],
    moments: [[f64; 3]; 3],
}

impl CostFit {
    /// Nothing is known yet, and `prior` a guess.
    pub fn new(prior: StepCost) -> CostFit {
        let cost = coefficients(prior);
        CostFit {
            cost,
            prior: cost,
            evidence: [Evidence::default(); SIZES],
            told: [Evidence::default(); TOLD_TOKENS.len()],
            unexpected: 0,
        }
    }

    /// Steps were measured before, and cost so much. What no device costs is taken for nothing known.
    pub fn measured(cost: StepCost) -> CostFit {
        let guess = StepCost::PRIOR;
        // Short steps do not tell these well, and nothing is to be pulled to zero.
        let per_token_secs = cost.per_token_secs.max(cost.fixed_secs * TOKEN_LEAST);
        let usual = per_token_secs * guess.per_context_secs / guess.per_token_secs;
        let cost = StepCost {
            per_token_secs,
            per_context_secs: cost.per_context_secs.max(usual),
            ..cost
        };
        let is_sane = coefficients(cost)
            .iter()
            .all(|secs| (0.0..STEP_SECS.end).contains(secs))
            && STEP_SECS.contains(&cost.secs(StepWork::slice(0, 1)));
        if !is_sane {
            return CostFit::new(guess);
        }
        let mut fit = CostFit::new(cost);
        for (told, tokens) in fit.told.iter_mut().zip(TOLD_TOKENS) {
            let work = StepWork::slice(0, tokens);
            told.add(x(work, cost.secs(work)), TOLD_STEPS);
        }
        fit
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
        let forecast = self.cost().secs(work);
        let secs = elapsed.as_secs_f64().max(forecast * SPEED_UP_MAX);
        if secs > 0.0 {
            self.compare(secs, forecast);
            self.forget(work);
            self.evidence[size(work)].add(x(work, secs), 1.0);
            let all = self.all();
            let pace = all.pace(&self.prior);
            let prior = self.prior.map(|cost| cost * pace);
            (0..SWEEPS).for_each(|_| all.sweep(&mut self.cost, &prior));
        }
    }

    fn compare(&mut self, secs: f64, forecast: f64) {
        self.unexpected = if secs > forecast * UNEXPECTED {
            self.unexpected.max(0).saturating_add(1)
        } else if secs * UNEXPECTED < forecast {
            self.unexpected.min(0).saturating_sub(1)
        } else {
            0
        };
    }

    /// A little of all sizes, since such a step is being learnt.
    fn forget(&mut self, learnt: StepWork) {
        let keep = 1.0 - 1.0 / MEMORY_STEPS;
        let is_changed = self.unexpected.abs() >= CHANGED_STEPS;
        let learnt_size = size(learnt);
        for (size, evidence) in self.evidence.iter_mut().enumerate() {
            evidence.scale(match size == learnt_size {
                true => keep,
                false if is_changed => TRUST.max((DOUBTED_STEPS / evidence.steps).min(1.0)),
                false => keep.max((KEPT_STEPS / evidence.steps).min(1.0)),
            });
        }
        for (told, tokens) in self.told.iter_mut().zip(TOLD_TOKENS) {
            if learnt.tokens >= u64::from(tokens) {
                told.scale(TRUST);
            } else if is_changed {
                told.scale(TRUST.max((DOUBTED_STEPS / told.steps).min(1.0)));
            }
        }
    }

    fn all(&self) -> Evidence {
        let mut all = Evidence::default();
        let known = self.evidence.iter().chain(&self.told);
        known.for_each(|evidence| all.join(evidence));
        all
    }
}

fn coefficients(cost: StepCost) -> [f64; 3] {
    [cost.fixed_secs, cost.per_token_secs, cost.per_context_secs]
}

/// The measurement as the fit sees it: so that a step of any length weighs the same.
fn x(work: StepWork, secs: f64) -> [f64; 3] {
    [1.0 / secs, work.tokens as f64 / secs, work.context as f64 / secs]
}

fn size(work: StepWork) -> usize {
    work.tokens.max(1).ilog2().min(SIZES as u32 - 1) as usize
}

impl Evidence {
    fn add(&mut self, x: [f64; 3], steps: f64) {
        self.steps += steps;
        for row in 0..3 {
            self.sums[row] += x[row] * steps;
            for column in 0..3 {
                self.moments[row][column] += x[row] * x[column] * steps;
            }
        }
    }

    fn join(&mut self, other: &Evidence) {
        self.steps += other.steps;
        for row in 0..3 {
            self.sums[row] += other.sums[row];
            for column in 0..3 {
                self.moments[row][column] += other.moments[row][column];
            }
        }
    }

    fn scale(&mut self, factor: f64) {
        self.steps *= factor;
        self.sums = self.sums.map(|sum| sum * factor);
        self.moments = self.moments.map(|row| row.map(|moment| moment * factor));
    }

    /// How many times as long as the prior says steps take, by least squares of the relative error.
    fn pace(&self, prior: &[f64; 3]) -> f64 {
        let sum = |weights: &[f64; 3]| -> f64 {
            let products = weights.iter().zip(prior);
            products.map(|(weight, cost)| weight * cost).sum()
        };
        let pace = sum(&self.sums) / sum(&self.moments.map(|row| sum(&row)));
        if pace.is_normal() { pace } else { 1.0 }
    }

    /// One round of coordinate descent.
    fn sweep(&self, cost: &mut [f64; 3], prior: &[f64; 3]) {
        for (row, prior) in prior.iter().enumerate() {
            let ridge = match *prior > 0.0 {
                true => PRIOR_STEPS[row] / (prior * prior),
                false => 0.0,
            };
            let others: f64 = (0..3)
                .filter(|column| *column != row)
                .map(|column| self.moments[row][column] * cost[column])
                .sum();
            let weight = self.moments[row][row] + ridge;
            if weight > 0.0 {
                let pull = self.sums[row] + ridge * prior - others;
                cost[row] = (pull / weight).max(0.0);
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

    /// A stream that decodes alone says nothing of prompts, however noisy the machine is.
    #[test]
    fn what_was_measured_of_prompts_outlives_any_number_of_tokens() {
        for (fixed_secs, per_token_secs) in [(8e-3, 1e-4), (5e-4, 8e-4), (4e-3, 3e-4)] {
            let mut fit = CostFit::measured(StepCost {
                fixed_secs,
                per_token_secs,
                per_context_secs: 0.0,
            });
            measure(&mut fit, 0, 4, 3.0);
            measure(&mut fit, 4, 1, 3.0);
            (0..20).for_each(|prompt| measure(&mut fit, prompt * 64, 256, 1.0));
            for step in 0..10_000 {
                let noise = 1.0 + 0.1 * (f64::from(step * 37 % 11) - 5.0) / 5.0;
                let interrupted = if step % 50 == 0 { 2.0 } else { 1.0 };
                measure(&mut fit, step % 2000, 1, noise * interrupted);
                let off = error(&fit, 0, 512);
                assert!(off < 0.35, "{off} after {step} tokens: {:?}", fit.cost());
            }
        }
    }

    /// Another machine's work on the same cores, for a while.
    #[test]
    fn what_was_measured_of_prompts_outlives_times_in_which_all_is_slow() {
        for (slow, per_token_secs) in [
            (1.6, 1e-4),
            (2.0, 1e-4),
            (4.0, 1e-4),
            (1.6, 8e-4),
            (2.0, 8e-4),
            (4.0, 8e-4),
        ] {
            let mut fit = CostFit::measured(StepCost {
                per_token_secs,
                ..TRUTH
            });
            (0..20).for_each(|prompt| measure(&mut fit, prompt * 64, 256, 1.0));
            for step in 0..5_000 {
                let noise = 1.0 + 0.1 * (f64::from(step * 37 % 11) - 5.0) / 5.0;
                let pace = if step % 1000 >= 960 { slow } else { 1.0 };
                measure(&mut fit, step % 2000, 1, noise * pace);
                // Right after such a time one cannot know.
                if step % 1000 > 300 && step % 1000 < 960 {
                    let off = error(&fit, 0, 128);
                    assert!(
                        off < 0.35,
                        "{off} after {step} tokens, {slow} times as slow, from {per_token_secs}: {:?}",
                        fit.cost()
                    );
                }
            }
        }
    }

    /// The first after a pause wait for memory.
    #[test]
    fn what_was_measured_at_the_start_outweighs_a_first_step_that_takes_long() {
        let mut fit = CostFit::measured(StepCost {
            per_context_secs: 0.0,
            ..TRUTH
        });
        measure(&mut fit, 0, 4, 3.0);
        for position in 4..200 {
            measure(&mut fit, position, 1, if position == 4 { 3.0 } else { 1.0 });
            let off = error(&fit, 0, 256);
            assert!(off < 0.5, "{off} at {position}: {:?}", fit.cost());
        }
    }

    /// What others were told, or measured while they were disturbed.
    #[test]
    fn a_wrong_beginning_does_not_last() {
        for (fixed_secs, per_token_secs, per_context_secs) in [
            (70e-3, 0.0, 0.0),
            (70e-3, 1e-5, 0.0),
            (0.0, 0.0, 1e-7),
            (1e-3, 0.0, 0.0),
            (0.0, 0.0, 0.0),
            (1e-9, 1e-9, 1e-12),
            (1e200, 1e200, 1e200),
            (1e-300, 1e-300, 1e-300),
            (f64::INFINITY, 1.0, 0.0),
            (1e-3, f64::NAN, 0.0),
            (-1.0, 1.0, 1.0),
        ] {
            let mut fit = CostFit::measured(StepCost {
                fixed_secs,
                per_token_secs,
                per_context_secs,
            });
            for step in 0..600 {
                match step % 20 {
                    0 => measure(&mut fit, step, 256, 1.0),
                    _ => measure(&mut fit, step, 1, 1.0),
                }
            }
            for (start, count) in [(0, 1), (0, 512), (2000, 128)] {
                let off = error(&fit, start, count);
                assert!(
                    off < 0.35,
                    "{start}+{count} off by {off} after {fixed_secs} {per_token_secs} {per_context_secs}: {:?}",
                    fit.cost()
                );
            }
        }
    }

    #[test]
    fn what_is_known_of_prompts_gives_way_to_news_of_them() {
        let mut fit = CostFit::measured(TRUTH);
        (0..400).for_each(|position| measure(&mut fit, position, 1, 2.0));
        (0..20).for_each(|step| measure(&mut fit, step * 64, 64, 2.0));
        let work = StepWork::slice(0, 64);
        let off = fit.cost().secs(work) / (2.0 * TRUTH.secs(work)) - 1.0;
        assert!(off.abs() < 0.15, "{off}: {:?}", fit.cost());
    }
}
