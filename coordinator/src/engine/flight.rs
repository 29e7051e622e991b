//! A plan while the ranks compute it.

use super::sequence::Sequence;
use crate::cost::StepWork;
use proto::request::Finish;
use proto::step::{Slice, SliceOutput, StepDone, Verdict};
use proto::{BlockHash, Position, SequenceId, StepId};

#[derive(Debug)]
pub(super) struct Flight {
    pub step: StepId,
    slices: Vec<Flying>,
}

#[derive(Clone, Copy, Debug)]
struct Flying {
    sequence: SequenceId,
    start: u32,
    count: u32,
    output: SliceOutput,
}

/// What came back for one slice.
#[derive(Debug)]
pub(super) struct Landing {
    pub sequence: SequenceId,
    pub count: u32,
    pub sealed: Vec<BlockHash>,
    output: SliceOutput,
    verdict: Option<Verdict>,
}

impl Flight {
    pub fn new(step: StepId, slices: &[Slice]) -> Flight {
        let flying = |slice: &Slice| Flying {
            sequence: slice.sequence,
            start: slice.start,
            count: slice.count,
            output: slice.output,
        };
        Flight {
            step,
            slices: slices.iter().map(flying).collect(),
        }
    }

    /// Where its slice of the sequence begins and ends.
    pub fn span_of(&self, sequence: SequenceId) -> Option<(u32, u32)> {
        let slice = self.slices.iter().find(|slice| slice.sequence == sequence)?;
        Some((slice.start, slice.start + slice.count))
    }

    pub fn work(&self) -> StepWork {
        let mut work = StepWork::default();
        self.slices
            .iter()
            .for_each(|slice| work += StepWork::slice(slice.start, slice.count));
        work
    }

    pub fn samples(&self) -> u64 {
        self.slices
            .iter()
            .filter(|slice| slice.output == SliceOutput::Sample)
            .count() as u64
    }

    /// Slice by slice, in the order of the plan.
    pub fn land(self, done: StepDone) -> Vec<Landing> {
        self.slices
            .into_iter()
            .map(|slice| Landing {
                sequence: slice.sequence,
                count: slice.count,
                output: slice.output,
                verdict: done
                    .sampled
                    .iter()
                    .find(|sampled| sampled.sequence == slice.sequence)
                    .map(|sampled| sampled.verdict),
                sealed: done
                    .sealed
                    .iter()
                    .filter(|(sequence, _)| *sequence == slice.sequence)
                    .map(|(_, hash)| *hash)
                    .collect(),
            })
            .collect()
    }
}

impl Landing {
    /// Adds the sampled token to the sequence: its position, and whether the sequence ends with it.
    pub fn outcome(&self, sequence: &mut Sequence) -> (Option<Position>, Option<Finish>) {
        match self.output {
            SliceOutput::Nothing => (None, None),
            SliceOutput::ScoresOnly => (None, Some(Finish::Length)),
            SliceOutput::Sample => match self.verdict {
                // A rank that has no answer for a slice cannot answer the next one either.
                None | Some(Verdict::Broken) => (None, Some(Finish::Failed)),
                Some(Verdict::Unguided) => (None, Some(Finish::GrammarTooCostly)),
                Some(Verdict::Complete) => (None, Some(Finish::Stop)),
                Some(Verdict::Wait) => {
                    sequence.hold();
                    (None, None)
                }
                Some(Verdict::Stop) => (Some(sequence.push_token()), Some(Finish::Stop)),
                Some(Verdict::Continue) => {
                    let position = sequence.push_token();
                    (
                        Some(position),
                        (sequence.tokens == sequence.tokens_max).then_some(Finish::Length),
                    )
                }
            },
        }
    }
}
