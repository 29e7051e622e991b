//! The shell's memory of running sequences: what an `Engine` must not see, and a rank needs.

use crate::constraint::Constraint;
use crate::layout::{BlockLists, Rows};
use crate::sample::{SampleRequest, SampledToken, TokenCounts, penalises};
use crate::step::{LogitRow, Pass, Purpose, StepInput, StepOutput};
use proto::request::{Sampling, Submit};
use proto::step::{Sampled, Slice, SliceOutput, StepDone, StepPlan, Verdict};
use proto::{BlockHash, Position, SequenceId, Span};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tokens, block lists, sampling and hash chain of every admitted sequence.
///
/// A plan that does not fit what the table knows (an unknown sequence, too few blocks) is a bug of the engine, and
/// panics.
pub struct SequenceTable {
    block_tokens: usize,
    blocks: BlockLists,
    sequences: BTreeMap<SequenceId, Sequence>,
}

struct Sequence {
    tokens: Vec<u32>,
    /// Where the stream's output begins in `tokens`: after the client's prompt, before what was resumed.
    output_from: usize,
    choice: u32,
    sampling: Arc<Sampling>,
    counts: Arc<TokenCounts>,
    constraint: Option<Arc<dyn Constraint>>,
    /// The next prompt position whose score is due; a recomputed position is not scored again.
    scored: usize,
    chain: HashChain,
}

/// The names of the blocks that are full of known tokens.
struct HashChain {
    named: usize,
    last: BlockHash,
}

impl SequenceTable {
    /// For blocks of so many tokens, and ranks with room for so many rows.
    pub fn new(block_tokens: u32, pass_rows_max: u32) -> Self {
        assert!(block_tokens > 0, "a block holds at least one token");
        SequenceTable {
            block_tokens: block_tokens as usize,
            blocks: BlockLists::new(block_tokens, pass_rows_max),
            sequences: BTreeMap::new(),
        }
    }

    /// After the engine's `Admitted`. The gateway has checked that all tokens are in the vocabulary. `constraint` has
    /// accepted the output that the stream already has, and is there exactly where the sampling asks for a grammar.
    pub fn admit(&mut self, sequence: SequenceId, submit: Submit, constraint: Option<Arc<dyn Constraint>>) {
        assert_eq!(
            submit.sampling.grammar.is_some(),
            constraint.is_some(),
            "a grammar comes with its constraint"
        );
        let earlier = self.sequences.insert(sequence, Sequence::new(submit, constraint));
        assert!(earlier.is_none(), "sequence {sequence} was admitted twice");
    }

    /// What the ranks have to compute for `plan`. To be called once for each plan, in order.
    pub fn input(&mut self, plan: &StepPlan) -> StepInput {
        for sequence in &plan.forget {
            self.sequences.remove(sequence);
        }
        let mut input = self.blocks.begin(plan);
        for slice in &plan.slices {
            self.blocks.extend(slice);
            let known = self.sequences.get_mut(&slice.sequence);
            let sequence = known.unwrap_or_else(|| unknown(slice.sequence));
            sequence.take_slice(slice, &self.blocks, &mut input.passes);
        }
        input
    }

    /// Takes in what was sampled, and tells the engine what it may know of it.
    pub fn record(&mut self, plan: &StepPlan, output: &StepOutput, elapsed: Span) -> StepDone {
        let mut done = StepDone {
            epoch: plan.epoch,
            step: plan.step,
            elapsed,
            ..StepDone::default()
        };
        for (sequence, token) in &output.sampled {
            done.sampled.push(Sampled {
                sequence: *sequence,
                verdict: token.verdict,
            });
            let block_tokens = self.block_tokens;
            let sealed = self.sequence(*sequence).take_token(token, block_tokens);
            done.sealed.extend(sealed.map(|hash| (*sequence, hash)));
        }
        done
    }

    fn sequence(&mut self, sequence: SequenceId) -> &mut Sequence {
        let known = self.sequences.get_mut(&sequence);
        known.unwrap_or_else(|| unknown(sequence))
    }
}

fn unknown(sequence: SequenceId) -> ! {
    panic!("the plan names sequence {sequence}, which was never admitted")
}

impl Sequence {
    fn new(submit: Submit, constraint: Option<Arc<dyn Constraint>>) -> Self {
        let ticket = submit.ticket;
        let tokens = submit.prompt;
        assert_eq!(
            tokens.len(),
            ticket.prompt_tokens as usize,
            "the ticket counts the prompt's tokens"
        );
        let output_from = tokens.len() - ticket.resumed_tokens as usize;
        let (prompt, output) = tokens.split_at(output_from);
        Sequence {
            output_from,
            choice: ticket.stream.choice,
            counts: Arc::new(TokenCounts::new(&submit.sampling, prompt, output)),
            sampling: Arc::new(submit.sampling),
            constraint,
            // The first token has nothing before it that could foretell it.
            scored: 1,
            chain: HashChain {
                named: ticket.block_hashes.len(),
                last: ticket.block_hashes.last().copied().unwrap_or(submit.hash_root),
            },
            tokens,
        }
    }

    fn take_slice(&mut self, slice: &Slice, blocks: &BlockLists, passes: &mut Vec<Pass>) {
        let end = (slice.start + slice.count) as usize;
        assert!(
            end <= self.tokens.len(),
            "a slice ends at {end}, {} tokens are known",
            self.tokens.len()
        );
        blocks.cut_into_passes(slice, passes, |rows, pass| {
            pass.tokens.extend_from_slice(&self.tokens[rows.positions()]);
            self.ask_for_scores(slice.sequence, rows, &mut pass.logits);
        });
        self.ask_for_sample(slice, passes);
    }

    /// The row at position p foretells the token at p + 1.
    fn ask_for_scores(&mut self, sequence: SequenceId, rows: Rows, logits: &mut Vec<LogitRow>) {
        let Rows { start, first_row, .. } = rows;
        let Some(top) = self.sampling.prompt_logprobs else {
            return;
        };
        let end = (start + rows.count + 1).min(self.output_from);
        assert!(
            start < self.scored || self.scored >= end,
            "a prompt whose scores are wanted was skipped in part"
        );
        for position in self.scored..end {
            let row = (first_row + position - 1 - start) as u32;
            let purpose = Purpose::Score {
                token: self.tokens[position],
                top,
            };
            logits.push(LogitRow {
                row,
                sequence,
                purpose,
            });
        }
        self.scored = self.scored.max(end);
    }

    fn ask_for_sample(&self, slice: &Slice, passes: &mut [Pass]) {
        match slice.output {
            SliceOutput::Nothing | SliceOutput::ScoresOnly => {}
            SliceOutput::Sample => {
                let end = (slice.start + slice.count) as usize;
                assert_eq!(
                    end,
                    self.tokens.len(),
                    "the next token follows the last one known"
                );
                let pass = passes.last_mut().expect("a slice has at least one row");
                let row = pass.positions.len() as u32 - 1;
                let purpose = Purpose::Sample(self.sample_request());
                pass.logits.push(LogitRow {
                    row,
                    sequence: slice.sequence,
                    purpose,
                });
            }
        }
    }

    fn sample_request(&self) -> SampleRequest {
        SampleRequest {
            sampling: self.sampling.clone(),
            counts: self.counts.clone(),
            choice: self.choice,
            position: Position((self.tokens.len() - self.output_from) as u32),
            constraint: self.constraint.clone(),
        }
    }

    /// The hash of the block that `token` filled, if the sequence goes on to compute it.
    fn take_token(&mut self, token: &SampledToken, block_tokens: usize) -> Option<BlockHash> {
        match token.verdict {
            Verdict::Stop | Verdict::Broken | Verdict::Wait | Verdict::Complete | Verdict::Unguided => None,
            Verdict::Continue => {
                self.tokens.push(token.id);
                if let Some(constraint) = &self.constraint {
                    constraint.accept(token.id);
                }
                if penalises(&self.sampling) {
                    Arc::make_mut(&mut self.counts).add_output(token.id);
                }
                self.chain.seal(&self.tokens, block_tokens)
            }
        }
    }
}

impl HashChain {
    fn seal(&mut self, tokens: &[u32], block_tokens: usize) -> Option<BlockHash> {
        let from = self.named * block_tokens;
        let block = tokens.get(from..from + block_tokens)?;
        self.named += 1;
        self.last = self.last.child(block);
        Some(self.last)
    }
}
