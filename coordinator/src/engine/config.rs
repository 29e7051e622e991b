//! What an engine is told about its replica.

use super::GroupSpec;
use super::budget::PROMPT_TOKENS_MIN;
use crate::cost::{Backlog, StepCost};
use proto::engine::Load;
use proto::{Epoch, GroupId, ReplicaId, Span};

/// Asked to come back, nobody waits less or more than this.
const RETRY_AFTER_MIN: Span = Span::from_secs(1);
const RETRY_AFTER_MAX: Span = Span::from_secs(60);
/// What a waiting sequence is taken to write, for the estimate of a queue's length alone.
pub(crate) const OUTPUT_TOKENS_EACH: u32 = 128;

#[derive(Clone, PartialEq, Debug)]
pub struct EngineConfig {
    pub replica: ReplicaId,
    pub epoch: Epoch,
    /// Tokens in a block of KV cache.
    pub block_tokens: u32,
    /// Blocks in the pool, for all groups together.
    pub blocks: u32,
    pub groups: Vec<GroupSpec>,
    /// The model's longest sequence. The pool may bound it further.
    pub context_tokens_max: u32,
    /// How many sequences decode in one plan. For each stage as many hold blocks at once, since plans are under way for all.
    pub sequences_per_stage_max: u32,
    /// How many may wait when a new one arrives; beyond it is refused with `Busy`.
    pub waiting_max: u32,
    /// How many parts the model's layers are cut into, each computed elsewhere: so many plans are under way at once. At
    /// least 1.
    pub stages: u32,
    /// The ranks' buffers are this long. At least `sequences_per_stage_max`, so that all of a plan can decode in one step.
    pub step_tokens_max: u32,
    /// Rows that the device multiplies at once, and fewer take about as long: a prompt that is cut anyway is cut where a step's
    /// rows are a multiple of it. 1 where each row takes its own time. Of several stages' devices that of the first counts.
    pub rows_at_once: u32,
    /// How long a step may take while somebody is reading along.
    pub between_tokens_max: Span,
    /// How long a step may take while nobody is, in one stage: longer ones compute prompts a little faster, and newcomers wait.
    /// For more stages see [`prompt_step_through`].
    pub prompt_step_max: Span,
    /// By steps before the first; else [`StepCost::PRIOR`] is assumed until some have been measured.
    pub cost_measured: Option<StepCost>,
}

/// See [`EngineConfig::prompt_step_max`]; what prompts are expected to take is reckoned with it.
pub const PROMPT_STEP_MAX: Span = Span::from_millis(250);

/// How long a prompt's step may take on its way through all `stages`, so that newcomers wait no longer than for two steps of
/// `one_stage`, as with one stage: for a part of somebody's step, until the first stage is free, and for the whole of their own.
pub fn prompt_step_through(stages: u32, one_stage: Span) -> Span {
    let stages = u128::from(stages.max(1));
    let through = u128::from(one_stage.0) * 2 * stages / (stages + 1);
    Span(u64::try_from(through).unwrap_or(u64::MAX))
}

/// How many sequences decode in one plan: with more, a step takes longer, and little is left to share.
const SEQUENCES_PER_STAGE_MAX: u32 = 64;
/// A step's tokens at most: longer ones compute prompts no faster.
pub const STEP_TOKENS_MAX: u32 = 512;
/// With room for fewer tokens in a step, prompts would wait while all sequences but theirs decode.
pub const STEP_ROOM_LEAST: u32 = SEQUENCES_PER_STAGE_MAX + PROMPT_TOKENS_MIN;

impl EngineConfig {
    /// Sensible for a small model on a CPU. `blocks`, `context_tokens_max` and the ids are the caller's to set.
    pub fn for_replica(replica: ReplicaId, epoch: Epoch) -> EngineConfig {
        EngineConfig {
            replica,
            epoch,
            block_tokens: 16,
            blocks: 512,
            groups: vec![GroupSpec { group: GroupId(0) }],
            context_tokens_max: 2048,
            sequences_per_stage_max: SEQUENCES_PER_STAGE_MAX,
            waiting_max: 256,
            stages: 1,
            step_tokens_max: STEP_TOKENS_MAX,
            rows_at_once: 1,
            between_tokens_max: Span::from_millis(50),
            prompt_step_max: PROMPT_STEP_MAX,
            cost_measured: None,
        }
    }

    /// For ranks whose buffers are this long: no more sequences decode in a plan than there is room for.
    ///
    /// # Panics
    /// When that is none.
    pub fn with_steps_of(self, step_tokens_max: u32) -> EngineConfig {
        assert!(step_tokens_max > 0, "a step has at least one token");
        EngineConfig {
            sequences_per_stage_max: self.sequences_per_stage_max.min(step_tokens_max),
            step_tokens_max,
            ..self
        }
    }

    /// How many sequences hold blocks at once.
    pub fn sequences_max(&self) -> u32 {
        self.sequences_per_stage_max.saturating_mul(self.stages)
    }

    pub(super) fn check(&self) {
        assert!(self.block_tokens > 0, "a block holds at least one token");
        assert!(!self.groups.is_empty(), "a model has at least one KV group");
        assert!(
            self.blocks as usize >= self.groups.len(),
            "the pool holds at least one token"
        );
        assert!(self.sequences_per_stage_max > 0, "at least one sequence runs");
        assert!(self.stages > 0, "a model has at least one stage");
        assert!(self.rows_at_once > 0, "a device multiplies at least one row");
        assert!(
            self.step_tokens_max >= self.sequences_per_stage_max,
            "all sequences of a plan decode in one step"
        );
    }

    /// When a place in the queue will be free again, going by the cost model.
    pub(super) fn retry_after(&self, load: &Load) -> Span {
        retry_after(load, self.sequences_max(), OUTPUT_TOKENS_EACH)
    }
}

/// How long a replica with this load needs for what it has, `batch` sequences side by side, within reason.
pub(crate) fn retry_after(load: &Load, batch: u32, output_tokens_each: u32) -> Span {
    let backlog = Backlog {
        prompt_tokens: load.backlog_tokens,
        sequences: load.running + load.waiting,
        output_tokens_each,
        batch,
    };
    StepCost::of_load(load)
        .drain(backlog)
        .clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_wait_as_long_however_many_stages_there_are() {
        let one_stage = Span::from_millis(250);
        for stages in 1..=8 {
            let step = prompt_step_through(stages, one_stage);
            let waits = step.as_secs_f64() * (1.0 + 1.0 / f64::from(stages));
            assert!((waits - 0.5).abs() < 1e-6, "{waits} s with {stages} stages");
        }
        assert_eq!(prompt_step_through(1, one_stage), one_stage);
    }
}
