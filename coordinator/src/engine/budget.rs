//! How much one step may compute.

use super::step_target::StepTarget;
use crate::cost::{StepCost, StepWork};

/// A step that nobody waits for takes at least this many of its prompts' tokens.
pub(super) const PROMPT_TOKENS_MIN: u32 = 16;

/// What is left of a step: tokens (the ranks' buffers) and seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepBudget {
    cost: StepCost,
    target: StepTarget,
    /// See [`EngineConfig::rows_at_once`](crate::engine::EngineConfig::rows_at_once).
    rows_at_once: u32,
    tokens: u32,
    tokens_left: u32,
    secs_left: f64,
    prompt_tokens_due: u32,
    /// The rest of the prompts is for other stages' steps.
    prompt_tokens_left: u32,
}

impl StepBudget {
    pub fn new(cost: StepCost, tokens_max: u32, target: StepTarget) -> StepBudget {
        StepBudget {
            cost,
            target,
            rows_at_once: 1,
            tokens: 0,
            tokens_left: tokens_max,
            secs_left: target.time().as_secs_f64() - cost.fixed_secs,
            prompt_tokens_due: match target {
                // Behind a long context a few take longer than was promised.
                StepTarget::Promised(_) => 1,
                StepTarget::Preferred(_) => PROMPT_TOKENS_MIN,
            },
            prompt_tokens_left: u32::MAX,
        }
    }

    pub fn in_rows_of(self, rows_at_once: u32) -> StepBudget {
        StepBudget { rows_at_once, ..self }
    }

    /// Leaves something of the `tokens` that prompts are behind for each of the `stages`. But no less than what costs as
    /// much as a step's fixed part: cutting finer would take longer than it saves.
    pub fn divide_prompts(&mut self, tokens: u64, stages: u32) {
        let part = u32::try_from(tokens.div_ceil(u64::from(stages))).unwrap_or(u32::MAX);
        let worthwhile = self.cost.tokens_within(self.cost.fixed_secs, 0);
        self.prompt_tokens_left = part.max(worthwhile).max(PROMPT_TOKENS_MIN);
    }

    /// What of a prompt's `wanted` tokens from `start` on is for this step.
    pub fn prompt_slice(&self, start: u32, wanted: u32) -> u32 {
        let wanted = wanted.min(self.prompt_tokens_left);
        let fits = self.fits(start);
        match wanted <= fits {
            true => wanted,
            false => self.in_whole_rows(fits).min(wanted),
        }
    }

    /// About `fits` tokens, with which the step's rows are a multiple of those at once.
    fn in_whole_rows(&self, fits: u32) -> u32 {
        let rows = self.tokens + fits;
        let fewer = (rows / self.rows_at_once * self.rows_at_once).saturating_sub(self.tokens);
        let more = rows.next_multiple_of(self.rows_at_once) - self.tokens;
        let is_preferred = match self.target {
            StepTarget::Promised(_) => false,
            StepTarget::Preferred(_) => fits > 0 && more <= self.tokens_left,
        };
        if is_preferred && (more - fits <= fits - fewer || fewer == 0) {
            more
        } else if fewer > 0 && fewer >= self.prompt_tokens_due {
            fewer
        } else {
            fits
        }
    }

    /// The longest slice from `start` on that still fits.
    pub fn slice_max(&self, start: u32) -> u32 {
        self.fits(start).min(self.prompt_tokens_left)
    }

    fn fits(&self, start: u32) -> u32 {
        self.cost
            .tokens_within(self.secs_left, start)
            .max(self.prompt_tokens_due)
            .min(self.tokens_left)
    }

    pub fn spend_on_decoding(&mut self, start: u32) {
        self.spend(start, 1);
    }

    pub fn spend_on_prompt(&mut self, start: u32, count: u32) {
        self.spend(start, count);
        self.prompt_tokens_due = self.prompt_tokens_due.saturating_sub(count);
        self.prompt_tokens_left = self.prompt_tokens_left.saturating_sub(count);
    }

    fn spend(&mut self, start: u32, count: u32) {
        self.tokens += count;
        self.tokens_left = self.tokens_left.saturating_sub(count);
        self.secs_left -= self.cost.marginal_secs(StepWork::slice(start, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Span;

    const COST: StepCost = StepCost {
        fixed_secs: 10e-3,
        per_token_secs: 1e-3,
        per_context_secs: 0.0,
    };

    fn promised(ms: u64) -> StepTarget {
        StepTarget::Promised(Span::from_millis(ms))
    }

    fn preferred(ms: u64) -> StepTarget {
        StepTarget::Preferred(Span::from_millis(ms))
    }

    #[test]
    fn the_budget_is_what_the_target_leaves_after_fixed_cost_and_decoding() {
        let mut budget = StepBudget::new(COST, 1000, promised(110));
        assert_eq!(budget.slice_max(0), 100);
        budget.spend_on_decoding(500);
        assert_eq!(budget.slice_max(0), 99);
        budget.spend_on_prompt(0, 60);
        assert_eq!(budget.slice_max(0), 39);
    }

    #[test]
    fn prompts_always_advance_and_by_more_where_nobody_reads_along() {
        for (target, least) in [(promised(15), 1), (preferred(15), PROMPT_TOKENS_MIN)] {
            let mut budget = StepBudget::new(COST, 1000, target);
            (0..50).for_each(|_| budget.spend_on_decoding(0));
            assert_eq!(budget.slice_max(0), least, "{target:?}");
            budget.spend_on_prompt(0, least);
            assert_eq!(budget.slice_max(0), 0, "{target:?}");
        }
    }

    #[test]
    fn behind_a_long_context_the_promise_is_kept_by_shorter_slices() {
        let attentive = StepCost {
            per_context_secs: 1e-6,
            ..COST
        };
        for (target, slice) in [(promised(31), 2), (preferred(31), PROMPT_TOKENS_MIN)] {
            let budget = StepBudget::new(attentive, 1000, target);
            assert_eq!(budget.prompt_slice(9000, 1000), slice, "{target:?}");
        }
    }

    #[test]
    fn prompts_are_divided_among_stages_in_parts_that_cost_no_less_than_a_step_itself() {
        let mut budget = StepBudget::new(COST, 1000, promised(1000));
        budget.divide_prompts(401, 4);
        assert_eq!(budget.slice_max(0), 101);
        budget.spend_on_prompt(0, 60);
        assert_eq!(budget.slice_max(0), 41);
        budget.divide_prompts(20, 4);
        assert_eq!(budget.slice_max(0), PROMPT_TOKENS_MIN);
        let slow_to_start = StepCost {
            fixed_secs: 30e-3,
            ..COST
        };
        let mut budget = StepBudget::new(slow_to_start, 1000, promised(1000));
        budget.divide_prompts(80, 4);
        assert_eq!(budget.slice_max(0), 30);
    }

    #[test]
    fn a_step_never_exceeds_its_tokens() {
        assert_eq!(StepBudget::new(COST, 8, promised(1000)).slice_max(0), 8);
        assert_eq!(StepBudget::new(COST, 8, preferred(1000)).prompt_slice(0, 100), 8);
    }

    #[test]
    fn a_prompt_that_is_cut_fills_tiles() {
        // 45 ms are left for as many tokens.
        for (target, decoding, wanted, slice) in [
            (promised(55), 0, 1000, 32),
            (preferred(55), 0, 1000, 48),
            (promised(55), 3, 1000, 29),
            (preferred(55), 3, 1000, 45),
            (preferred(55), 3, 43, 43),
            // What fits whole is not cut, and what is nearly whole ends.
            (promised(55), 0, 45, 45),
            (preferred(55), 0, 46, 46),
            (preferred(49), 0, 1000, 32),
            (preferred(27), 0, 1000, 16),
            // With the rows that decode a tile is full; the minimum stays.
            (promised(30), 5, 1000, 11),
            (preferred(12), 0, 1000, 16),
        ] {
            let mut budget = StepBudget::new(COST, 1000, target).in_rows_of(16);
            (0..decoding).for_each(|_| budget.spend_on_decoding(0));
            assert_eq!(
                budget.prompt_slice(0, wanted),
                slice,
                "{target:?}, {decoding} and {wanted}"
            );
        }
        let mut full = StepBudget::new(COST, 1000, preferred(55)).in_rows_of(16);
        full.spend_on_prompt(0, 48);
        assert_eq!(full.prompt_slice(0, 1000), 0);
    }

    #[test]
    fn without_tiles_a_prompt_takes_all_that_fits() {
        for target in [promised(55), preferred(55)] {
            let mut budget = StepBudget::new(COST, 1000, target);
            budget.spend_on_decoding(0);
            assert_eq!(budget.prompt_slice(0, 1000), 44, "{target:?}");
        }
    }
}
