//! How a plan becomes rows: the same in every stage, so that only the plan has to be told.

use crate::step::{Pass, StepInput};
use kernels::SequenceRows;
use proto::step::{Slice, StepPlan};
use proto::{GroupId, SequenceId};
use std::collections::BTreeMap;
use std::ops::Range;

/// The group of layers with full attention; all layers of the models known so far.
const FULL_ATTENTION: GroupId = GroupId(0);

/// Which pages each sequence has, by group, in the order of positions.
pub(crate) struct BlockLists {
    block_tokens: usize,
    pass_rows_max: usize,
    lists: BTreeMap<SequenceId, BTreeMap<GroupId, Vec<u32>>>,
}

/// Rows of one sequence that lie side by side in a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rows {
    /// The position of the first.
    pub start: usize,
    pub first_row: usize,
    pub count: usize,
}

impl BlockLists {
    pub fn new(block_tokens: u32, pass_rows_max: u32) -> BlockLists {
        assert!(block_tokens > 0, "a block holds at least one token");
        assert!(pass_rows_max > 0, "a pass has at least one row");
        BlockLists {
            block_tokens: block_tokens as usize,
            pass_rows_max: pass_rows_max as usize,
            lists: BTreeMap::new(),
        }
    }

    /// What comes before a plan's slices.
    pub fn begin(&mut self, plan: &StepPlan) -> StepInput {
        for sequence in plan.forget.iter().chain(&plan.reset) {
            self.lists.remove(sequence);
        }
        StepInput {
            zero: plan.zero.iter().map(|block| block.0).collect(),
            ..StepInput::default()
        }
    }

    pub fn extend(&mut self, slice: &Slice) {
        let lists = self.lists.entry(slice.sequence).or_default();
        for (group, block) in &slice.new_blocks {
            lists.entry(*group).or_default().push(block.0);
        }
    }

    pub fn count(&self, sequence: SequenceId) -> usize {
        let lists = self.lists.get(&sequence);
        lists
            .and_then(|lists| lists.get(&FULL_ATTENTION))
            .map_or(0, Vec::len)
    }

    /// # Panics
    /// When the sequence has too few for the slice: a bug of the engine.
    fn of(&self, slice: &Slice) -> &[u32] {
        let lists = self.lists.get(&slice.sequence);
        let blocks = lists.and_then(|lists| lists.get(&FULL_ATTENTION));
        let blocks = blocks.map_or(&[][..], Vec::as_slice);
        let end = (slice.start + slice.count) as usize;
        assert!(
            blocks.len() * self.block_tokens >= end,
            "{} blocks do not hold {end} positions",
            blocks.len()
        );
        blocks
    }

    /// Puts the slice's rows where there is room; `fill` adds what only some stages know of them.
    pub fn cut_into_passes(
        &self,
        slice: &Slice,
        passes: &mut Vec<Pass>,
        mut fill: impl FnMut(Rows, &mut Pass),
    ) {
        let blocks = self.of(slice);
        let (mut start, end) = (slice.start as usize, (slice.start + slice.count) as usize);
        while start < end {
            let pass = self.open_pass(passes);
            let first_row = pass.positions.len();
            let rows = Rows {
                start,
                first_row,
                count: (end - start).min(self.pass_rows_max - first_row),
            };
            pass.positions
                .extend(rows.positions().map(|position| position as u32));
            pass.batch.sequences.push(SequenceRows {
                first_row,
                rows: rows.count,
                start,
                blocks: blocks.to_vec(),
            });
            fill(rows, pass);
            start += rows.count;
        }
    }

    fn open_pass<'p>(&self, passes: &'p mut Vec<Pass>) -> &'p mut Pass {
        let is_full = |pass: &Pass| pass.positions.len() == self.pass_rows_max;
        if passes.last().is_none_or(is_full) {
            passes.push(Pass::default());
        }
        passes.last_mut().expect("one was just pushed if there was none")
    }
}

impl Rows {
    pub fn positions(&self) -> Range<usize> {
        self.start..self.start + self.count
    }
}
