use crate::layout::BlockLists;
use crate::stage::Stage;
use crate::step::StepInput;
use proto::step::{Slice, StepPlan};

/// What a stage that does not sample remembers between plans: which pages each sequence has. It knows no token but
/// those of the plan at hand.
pub struct StageTable {
    stage: Stage,
    bounds: PlanBounds,
    blocks: BlockLists,
}

/// What a plan may name: it comes from another process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanBounds {
    pub block_tokens: u32,
    pub blocks: u32,
    pub vocabulary: u32,
    /// Rows that the ranks have room for: longer plans are cut.
    pub pass_rows_max: u32,
}

/// A plan that this stage cannot compute.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnfitPlan {
    #[error("a plan that needs {rows} tokens came with {tokens}")]
    Tokens { rows: usize, tokens: usize },
    #[error("token {token} is not in the vocabulary")]
    Vocabulary { token: u32 },
    #[error("page {block} is not in the cache")]
    Block { block: u32 },
    #[error("{blocks} pages do not hold positions up to {end}")]
    TooFewBlocks { blocks: usize, end: u64 },
}

impl StageTable {
    pub fn new(stage: Stage, bounds: PlanBounds) -> StageTable {
        StageTable {
            stage,
            blocks: BlockLists::new(bounds.block_tokens, bounds.pass_rows_max),
            bounds,
        }
    }

    /// What this stage's ranks have to compute for `plan`, apart from the residual. To be called once for each plan, in
    /// order. `tokens` are those of all rows in a stage that embeds, and none in others. After an error nothing that was
    /// remembered is of use.
    pub fn input(&mut self, plan: &StepPlan, tokens: &[u32]) -> Result<StepInput, UnfitPlan> {
        self.check(plan, tokens)?;
        let mut input = self.blocks.begin(plan);
        let mut tokens = tokens.iter();
        for slice in &plan.slices {
            self.blocks.extend(slice);
            self.holds(slice)?;
            self.blocks
                .cut_into_passes(slice, &mut input.passes, |rows, pass| {
                    pass.tokens.extend(tokens.by_ref().take(rows.count));
                });
        }
        Ok(input)
    }

    fn check(&self, plan: &StepPlan, tokens: &[u32]) -> Result<(), UnfitPlan> {
        let rows = match self.stage.embeds() {
            true => plan.slices.iter().map(|slice| slice.count as usize).sum(),
            false => 0,
        };
        if tokens.len() != rows {
            let tokens = tokens.len();
            return Err(UnfitPlan::Tokens { rows, tokens });
        }
        if let Some(token) = tokens.iter().find(|token| **token >= self.bounds.vocabulary) {
            return Err(UnfitPlan::Vocabulary { token: *token });
        }
        let new = plan.slices.iter().flat_map(|slice| &slice.new_blocks);
        let mut named = plan.zero.iter().chain(new.map(|(_, block)| block));
        match named.find(|block| block.0 >= self.bounds.blocks) {
            Some(block) => Err(UnfitPlan::Block { block: block.0 }),
            None => Ok(()),
        }
    }

    fn holds(&self, slice: &Slice) -> Result<(), UnfitPlan> {
        let end = u64::from(slice.start) + u64::from(slice.count);
        let blocks = self.blocks.count(slice.sequence);
        match blocks as u64 * u64::from(self.bounds.block_tokens) >= end {
            true => Ok(()),
            false => Err(UnfitPlan::TooFewBlocks { blocks, end }),
        }
    }
}
