use crate::layout::{BlockLists, cut_into_passes};
use crate::stage::Stage;
use crate::step::StepInput;
use proto::step::StepPlan;

/// What a stage that does not sample remembers between plans: which pages each sequence has. It knows no token but
/// those of the plan at hand.
pub struct StageTable {
    stage: Stage,
    blocks: BlockLists,
}

/// The head has sent another number of tokens than its plan has rows.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("a plan that needs {rows} tokens came with {tokens}")]
pub struct TokensMissing {
    pub rows: usize,
    pub tokens: usize,
}

impl StageTable {
    pub fn new(stage: Stage, block_tokens: u32) -> StageTable {
        StageTable {
            stage,
            blocks: BlockLists::new(block_tokens),
        }
    }

    /// What this stage's ranks have to compute for `plan`, apart from the residual. To be called once for each plan, in
    /// order. `tokens` are those of all rows in a stage that embeds, and none in others.
    ///
    /// # Panics
    /// Where a sequence has too few pages for its slice: a bug of the engine.
    pub fn input(&mut self, plan: &StepPlan, tokens: &[u32]) -> Result<StepInput, TokensMissing> {
        let rows = match self.stage.embeds() {
            true => plan.slices.iter().map(|slice| slice.count as usize).sum(),
            false => 0,
        };
        if tokens.len() != rows {
            let tokens = tokens.len();
            return Err(TokensMissing { rows, tokens });
        }
        let mut input = self.blocks.begin(plan);
        let mut tokens = tokens.iter();
        for slice in &plan.slices {
            self.blocks.extend(slice);
            cut_into_passes(slice, self.blocks.of(slice), &mut input.passes, |rows, pass| {
                pass.tokens.extend(tokens.by_ref().take(rows.count));
            });
        }
        Ok(input)
    }
}
