//! A step as ranks see it: tokens, positions and pages in flat arrays, the same for all ranks.

use crate::sample::{SampleRequest, SampledToken};
use kernels::Batch;
use proto::SequenceId;
use proto::engine::TokenScore;

/// Rows that are computed at once, where nobody asks for fewer: beyond it computing gets no faster. A longer step is computed
/// in several passes.
pub const PASS_ROWS_MAX: u32 = 512;

/// Made by [`crate::SequenceTable::input`]; every rank of the replica gets the same.
#[derive(Clone, Debug, Default)]
pub struct StepInput {
    /// Pages to be zeroed before anything is computed.
    pub zero: Vec<u32>,
    /// In order; a sequence may continue from one to the next.
    pub passes: Vec<Pass>,
    /// What the stage before has made of all rows, row-major `(rows, hidden)`. Empty in the first stage.
    pub residual: Vec<f32>,
}

impl StepInput {
    /// Of all passes.
    pub fn rows(&self) -> usize {
        self.passes.iter().map(|pass| pass.positions.len()).sum()
    }

    /// Of all passes, in order: what the first stage has to know of what is computed.
    pub fn tokens(&self) -> Vec<u32> {
        self.passes
            .iter()
            .flat_map(|pass| &pass.tokens)
            .copied()
            .collect()
    }
}

/// Rows that go through the model together, no more than ranks have room for.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// One for each row; none after the first stage.
    pub tokens: Vec<u32>,
    /// One for each row.
    pub positions: Vec<u32>,
    pub batch: Batch,
    /// The rows whose logits are wanted, ascending.
    pub logits: Vec<LogitRow>,
}

#[derive(Clone, Debug)]
pub struct LogitRow {
    pub row: u32,
    pub sequence: SequenceId,
    pub purpose: Purpose,
}

/// What logits are for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// The score of a prompt token that is known already, with this many of the likeliest ones.
    Score {
        token: u32,
        top: u8,
    },
    Sample(SampleRequest),
}

/// What rank 0 gives back; the others' is of no use.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StepOutput {
    /// In the order of the plan's slices that sample.
    pub sampled: Vec<(SequenceId, SampledToken)>,
    /// Scores of prompt tokens in order: each sequence goes on where its last step ended, and the first token has none.
    pub prompt_scores: Vec<(SequenceId, Vec<TokenScore>)>,
    /// For the next stage, as in [`StepInput::residual`]. Empty from the last stage.
    pub residual: Vec<f32>,
}

impl StepOutput {
    pub(crate) fn add_prompt_score(&mut self, sequence: SequenceId, score: TokenScore) {
        match self.prompt_scores.last_mut() {
            Some((last, scores)) if *last == sequence => scores.push(score),
            Some(_) | None => self.prompt_scores.push((sequence, vec![score])),
        }
    }
}
