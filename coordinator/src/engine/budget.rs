//! How much one step may compute.

use crate::cost::{StepCost, StepWork};
use proto::Span;

/// A step with prompts to compute takes at least this many of their tokens, even where decoding alone uses up the time:
/// otherwise prompts would starve.
pub(super) const PROMPT_TOKENS_MIN: u32 = 16;

/// What is left of a step: tokens (the ranks' buffers) and seconds (the promise of the time between tokens).
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepBudget {
    cost: StepCost,
    tokens_left: u32,
    secs_left: f64,
    prompt_tokens_due: u32,
    /// The rest of the prompts is for other stages' steps.
    prompt_tokens_left: u32,
}

impl StepBudget {
    pub fn new(cost: StepCost, tokens_max: u32, target: Span) -> StepBudget {
        StepBudget {
            cost,
            tokens_left: tokens_max,
            secs_left: target.as_secs_f64() - cost.fixed_secs,
            prompt_tokens_due: PROMPT_TOKENS_MIN,
            prompt_tokens_left: u32::MAX,
        }
    }

    /// Leaves something of the `tokens` that prompts are behind for each of the `stages`. But no less than what costs as
    /// much as a step's fixed part: cutting finer would take longer than it saves.
    pub fn divide_prompts(&mut self, tokens: u64, stages: u32) {
        let part = u32::try_from(tokens.div_ceil(u64::from(stages))).unwrap_or(u32::MAX);
        let worthwhile = self.cost.tokens_within(self.cost.fixed_secs, 0);
        self.prompt_tokens_left = part.max(worthwhile).max(PROMPT_TOKENS_MIN);
    }

    /// The longest slice from `start` on that still fits.
    pub fn slice_max(&self, start: u32) -> u32 {
        self.cost
            .tokens_within(self.secs_left, start)
            .max(self.prompt_tokens_due)
            .min(self.tokens_left)
            .min(self.prompt_tokens_left)
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
        self.tokens_left = self.tokens_left.saturating_sub(count);
        self.secs_left -= self.cost.marginal_secs(StepWork::slice(start, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: StepCost = StepCost {
        fixed_secs: 10e-3,
        per_token_secs: 1e-3,
        per_context_secs: 0.0,
    };

    #[test]
    fn the_budget_is_what_the_target_leaves_after_fixed_cost_and_decoding() {
        let mut budget = StepBudget::new(COST, 1000, Span::from_millis(110));
        assert_eq!(budget.slice_max(0), 100);
        budget.spend_on_decoding(500);
        assert_eq!(budget.slice_max(0), 99);
        budget.spend_on_prompt(0, 60);
        assert_eq!(budget.slice_max(0), 39);
    }

    #[test]
    fn prompts_get_a_minimum_even_when_decoding_uses_up_the_time() {
        let mut budget = StepBudget::new(COST, 1000, Span::from_millis(15));
        (0..50).for_each(|_| budget.spend_on_decoding(0));
        assert_eq!(budget.slice_max(0), PROMPT_TOKENS_MIN);
        budget.spend_on_prompt(0, PROMPT_TOKENS_MIN);
        assert_eq!(budget.slice_max(0), 0);
    }

    #[test]
    fn prompts_are_divided_among_stages_in_parts_that_cost_no_less_than_a_step_itself() {
        let mut budget = StepBudget::new(COST, 1000, Span::from_secs(1));
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
        let mut budget = StepBudget::new(slow_to_start, 1000, Span::from_secs(1));
        budget.divide_prompts(80, 4);
        assert_eq!(budget.slice_max(0), 30);
    }

    #[test]
    fn a_step_never_exceeds_its_tokens() {
        assert_eq!(StepBudget::new(COST, 8, Span::from_secs(1)).slice_max(0), 8);
    }
}
