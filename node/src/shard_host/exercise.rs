//! Steps with made-up prompts through the real ranks: how long computing takes, without engine and HTTP.

use super::prepare::BLOCK_TOKENS;
use proto::request::{PrefixUse, Sampling, ServiceClass, Submit, Ticket};
use proto::step::{Slice, SliceOutput, StepPlan, Verdict};
use proto::{
    AdapterId, Attempt, BlockHash, BlockId, GroupId, RequestId, SequenceId, Span, StreamId, TenantId,
};
use shard::{Lost, SampledToken, SequenceTable, StepInput, StepOutput};
use std::time::{Duration, Instant};

/// Sequences that are computed side by side, alike in everything but their tokens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    pub sequences: u32,
    pub prompt_tokens: u32,
    /// At most this many are computed after the prompt.
    pub output_tokens: u32,
    /// 0 is greedy; anything else samples from the likeliest 95 %.
    pub temperature: f32,
}

impl Shape {
    /// KV blocks for all of them.
    pub fn blocks(&self) -> u32 {
        self.sequences.saturating_mul(self.blocks_each())
    }

    fn blocks_each(&self) -> u32 {
        self.prompt_tokens
            .saturating_add(self.output_tokens)
            .div_ceil(BLOCK_TOKENS)
    }
}

/// Runs steps, one batch after another. Nothing else may use the ranks' KV blocks meanwhile.
pub struct Exercise<Compute> {
    compute: Compute,
    table: SequenceTable,
    vocabulary: u32,
    next: SequenceId,
}

/// Why a step told nothing.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExerciseError {
    #[error("a rank died")]
    Lost(#[from] Lost),
    #[error(
        "the model computes logits that are not numbers, so its weights were made or converted wrongly: convert it again, or \
         take another file"
    )]
    NotFinite,
}

/// Sequences that have come as far as `computed` positions.
pub struct Batch {
    sequences: Vec<SequenceId>,
    blocks_each: u32,
    computed: u32,
}

impl<Compute> Exercise<Compute>
where
    Compute: FnMut(StepInput) -> Result<StepOutput, Lost>,
{
    /// On ranks that have room for so many rows.
    pub fn new(compute: Compute, vocabulary: u32, pass_rows_max: u32) -> Exercise<Compute> {
        Exercise {
            compute,
            table: SequenceTable::new(BLOCK_TOKENS, pass_rows_max),
            vocabulary,
            next: SequenceId(0),
        }
    }

    /// Nothing of it is computed yet. It takes the blocks from 0 on, so there is one batch at a time.
    pub fn admit(&mut self, shape: Shape) -> Batch {
        Batch {
            sequences: (0..shape.sequences).map(|_| self.admit_one(shape)).collect(),
            blocks_each: shape.blocks_each(),
            computed: 0,
        }
    }

    fn admit_one(&mut self, shape: Shape) -> SequenceId {
        let sequence = self.next;
        self.next = SequenceId(sequence.0 + 1);
        // Two primes make the prompts differ from each other and hold hardly a token twice.
        let token = |place: u32| {
            let number = u64::from(place) * 7919 + sequence.0 * 31;
            (number % u64::from(self.vocabulary)) as u32
        };
        let prompt = (0..shape.prompt_tokens).map(token).collect();
        self.table.admit(sequence, submit(prompt, shape), None);
        sequence
    }

    /// One step: the next `count` positions of every sequence, and a token for each at its end.
    pub fn advance(&mut self, batch: &mut Batch, count: u32) -> Result<Duration, ExerciseError> {
        let plan = StepPlan {
            slices: batch.slices(count),
            ..StepPlan::default()
        };
        batch.computed += count;
        let began = Instant::now();
        let input = self.table.input(&plan);
        let output = (self.compute)(input)?;
        let is_broken = |(_, token): &(SequenceId, SampledToken)| token.verdict == Verdict::Broken;
        if output.sampled.iter().any(is_broken) {
            return Err(ExerciseError::NotFinite);
        }
        self.table.record(&plan, &output, Span::ZERO);
        Ok(began.elapsed())
    }

    pub fn forget(&mut self, batch: Batch) {
        self.table.input(&StepPlan {
            forget: batch.sequences,
            ..StepPlan::default()
        });
    }
}

impl Batch {
    fn slices(&self, count: u32) -> Vec<Slice> {
        let slice = |(place, sequence): (u32, &SequenceId)| Slice {
            sequence: *sequence,
            adapter: AdapterId(0),
            start: self.computed,
            count,
            new_blocks: self.new_blocks(place, count),
            output: SliceOutput::Sample,
        };
        (0..).zip(&self.sequences).map(slice).collect()
    }

    fn new_blocks(&self, place: u32, count: u32) -> Vec<(GroupId, BlockId)> {
        let end = self.computed + count;
        (self.computed.div_ceil(BLOCK_TOKENS)..end.div_ceil(BLOCK_TOKENS))
            .map(|block| (GroupId(0), BlockId(place * self.blocks_each + block)))
            .collect()
    }
}

fn submit(prompt: Vec<u32>, shape: Shape) -> Submit {
    Submit {
        ticket: Ticket {
            stream: StreamId {
                request: RequestId(0),
                choice: 0,
            },
            attempt: Attempt(0),
            tenant: TenantId(0),
            class: ServiceClass::Default,
            adapter: AdapterId(0),
            prompt_tokens: shape.prompt_tokens,
            resumed_tokens: 0,
            block_hashes: BlockHash(0).chain(&prompt, BLOCK_TOKENS as usize),
            max_new_tokens: shape.output_tokens,
            prefix: PrefixUse::Recompute,
            deadline: None,
        },
        prompt,
        hash_root: BlockHash(0),
        sampling: Sampling {
            temperature: shape.temperature,
            top_p: if shape.temperature == 0.0 { 1.0 } else { 0.95 },
            ..Sampling::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        sequences: 3,
        prompt_tokens: 20,
        output_tokens: 14,
        temperature: 0.0,
    };

    #[test]
    fn every_position_is_computed_once_in_blocks_of_its_own() {
        let (mut rows, mut sampled) = (0, 0);
        let mut exercise = Exercise::new(
            |input: StepInput| {
                let mut output = StepOutput::default();
                for pass in &input.passes {
                    rows += pass.positions.len();
                    sampled += pass.logits.len();
                    let tokens = pass.logits.iter().map(|wanted| (wanted.sequence, token()));
                    output.sampled.extend(tokens);
                }
                Ok(output)
            },
            1000,
            512,
        );
        let mut batch = exercise.admit(SHAPE);
        exercise.advance(&mut batch, SHAPE.prompt_tokens).unwrap();
        let new_blocks = (0..SHAPE.output_tokens).flat_map(|_| {
            let new_blocks = batch
                .slices(1)
                .iter()
                .flat_map(|slice| slice.new_blocks.clone())
                .collect::<Vec<_>>();
            exercise.advance(&mut batch, 1).unwrap();
            new_blocks
        });
        let block = |id| (GroupId(0), BlockId(id));
        assert_eq!(new_blocks.collect::<Vec<_>>(), [block(2), block(5), block(8)]);
        exercise.forget(batch);
        assert_eq!(SHAPE.blocks(), 9);
        assert_eq!((rows, sampled), (3 * 34, 3 * 15));
    }

    #[test]
    fn logits_that_are_not_numbers_end_it() {
        let broken = |input: StepInput| {
            let logits = input.passes.iter().flat_map(|pass| &pass.logits);
            let verdict = Verdict::Broken;
            Ok(StepOutput {
                sampled: logits
                    .map(|wanted| (wanted.sequence, SampledToken { verdict, ..token() }))
                    .collect(),
                ..StepOutput::default()
            })
        };
        let mut exercise = Exercise::new(broken, 1000, 512);
        let mut batch = exercise.admit(SHAPE);
        let advanced = exercise.advance(&mut batch, SHAPE.prompt_tokens);
        assert_eq!(advanced, Err(ExerciseError::NotFinite));
    }

    fn token() -> SampledToken {
        SampledToken {
            id: 1,
            score: None,
            verdict: Verdict::Continue,
        }
    }
}
