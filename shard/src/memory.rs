use crate::gguf::{Gguf, Tensor};
use crate::model::decoder::LOGIT_ROWS_MAX;
use crate::model::{Cut, LoadError, ModelConfig};
use crate::stage::Stage;
use crate::step::PASS_ROWS_MAX;

/// What all ranks of a stage take together, known before anything is allocated. Estimates: a device may pack weights
/// a little tighter or looser than the file does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModelMemory {
    pub weight_bytes: u64,
    /// Of one block, over all its layers and ranks.
    pub kv_bytes_per_block: u64,
    pub workspace_bytes: u64,
}

const F32_BYTES: usize = 4;

impl ModelMemory {
    /// For `ranks` ranks and blocks of `block_tokens`.
    pub fn of(
        config: &ModelConfig,
        gguf: &Gguf<'_>,
        stage: &Stage,
        ranks: usize,
        block_tokens: u32,
    ) -> Result<ModelMemory, LoadError> {
        let too_many = LoadError::TooManyRanks {
            ranks,
            heads: config.heads,
        };
        let cut = Cut::new(config, ranks).ok_or(too_many)?;
        Ok(ModelMemory {
            weight_bytes: weight_bytes(config, gguf, stage, &cut)?,
            kv_bytes_per_block: (0..ranks)
                .map(|rank| kv_bytes(config, stage, &cut, rank) * u64::from(block_tokens))
                .sum(),
            workspace_bytes: (0..ranks).map(|rank| workspace_bytes(config, &cut, rank)).sum(),
        })
    }
}

/// Every rank of the first stage holds the whole embedding table; a tied one is held again, cut, where logits are cut.
fn weight_bytes(config: &ModelConfig, gguf: &Gguf<'_>, stage: &Stage, cut: &Cut) -> Result<u64, LoadError> {
    let needed = gguf
        .tensors()
        .filter(|tensor| stage.needs(tensor.name, config.output()));
    let once: u64 = needed.map(bytes).sum();
    if !stage.embeds() {
        return Ok(once);
    }
    let embedding = bytes(gguf.tensor("token_embd.weight")?);
    let others = cut.ranks() as u64 - 1;
    let output = if stage.samples() && config.tied_embeddings && others > 0 {
        embedding
    } else {
        0
    };
    Ok(once + others * embedding + output)
}

fn bytes(tensor: &Tensor<'_>) -> u64 {
    tensor.bytes().len() as u64
}

/// Of one position.
fn kv_bytes(config: &ModelConfig, stage: &Stage, cut: &Cut, rank: usize) -> u64 {
    let row = 2 * cut.kv_heads(rank).len() * config.kv.head_bytes(config.head_dim);
    (row * stage.layers().len()) as u64
}

fn workspace_bytes(config: &ModelConfig, cut: &Cut, rank: usize) -> u64 {
    let queries = cut.queries()[rank].len();
    let own = 2 * cut.keys(rank).len() + queries + 2 * cut.feed_forward[rank].len();
    let gathered = config.hidden + config.heads * config.head_dim + config.feed_forward;
    // Of what is gathered there are the rank's part and the whole, twice.
    let copies = if cut.ranks() == 1 { 1 } else { 3 };
    let row = 2 * config.hidden + own + copies * gathered;
    let logit_row = 2 * config.hidden + copies * config.vocabulary;
    ((PASS_ROWS_MAX * row + LOGIT_ROWS_MAX * logit_row) * F32_BYTES) as u64
}
