//! What an engine tells the ranks to compute, and what comes back.

use crate::{AdapterId, BlockHash, BlockId, Epoch, GroupId, SequenceId, Span, StepId};
use rkyv::{Archive, Deserialize, Serialize};

/// One step of a replica. A rank obeys it; it never chooses.
///
/// Order within a step: `forget` and `reset`, then `zero`, then all slices together.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
pub struct StepPlan {
    pub epoch: Epoch,
    pub step: StepId,
    /// Sequences that ended: their tokens and block lists may go.
    pub forget: Vec<SequenceId>,
    /// Sequences that lost all their blocks (preempted): tokens stay, block lists are emptied.
    pub reset: Vec<SequenceId>,
    /// Pages that last belonged to another tenant.
    pub zero: Vec<BlockId>,
    pub slices: Vec<Slice>,
}

/// The part of one sequence that a step computes: `count` positions from `start` on.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Slice {
    pub sequence: SequenceId,
    pub adapter: AdapterId,
    /// How many positions of the sequence have KV before this slice.
    pub start: u32,
    /// At least 1.
    pub count: u32,
    /// Appended to the sequence's block list of that group, in order. Includes blocks found by prefix.
    pub new_blocks: Vec<(GroupId, BlockId)>,
    pub output: SliceOutput,
}

/// What the last position of a slice is for.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SliceOutput {
    /// More of the prompt follows in a later step.
    Nothing,
    /// The slice reaches the last known token: choose the next one.
    Sample,
    /// The slice reaches the end of a prompt of which only scores are wanted.
    ScoresOnly,
}

/// A step has been computed on every rank.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
pub struct StepDone {
    pub epoch: Epoch,
    pub step: StepId,
    /// How long the ranks computed, of all stages together.
    pub elapsed: Span,
    /// Of that, each stage, in their order; left empty where there is one.
    pub parts: Vec<Span>,
    /// One for each slice with [`SliceOutput::Sample`], in the order of the slices.
    pub sampled: Vec<Sampled>,
    /// Blocks that became full of known tokens by what was sampled: the next hash of that sequence's chain.
    pub sealed: Vec<(SequenceId, BlockHash)>,
}

/// That a token was chosen, and whether it ends the sequence; *which* token is none of a decider's business.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sampled {
    pub sequence: SequenceId,
    pub verdict: Verdict,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    Continue,
    /// A stop token.
    Stop,
    /// The logits were not finite: this sequence alone fails.
    Broken,
    /// Nothing was chosen, because it is not known yet what the sequence's grammar allows. The same position is due
    /// again once the shell says that it is known.
    Wait,
    /// Nothing was chosen: the grammar's text is complete and nothing may follow it.
    Complete,
    /// Nothing can be chosen: the grammar cannot be followed any further. This sequence alone fails.
    Unguided,
}
