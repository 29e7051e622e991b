use crate::gguf::{Gguf, Tensor};
use crate::model::decoder::LOGIT_ROWS_MAX;
use crate::model::{Cut, LoadError, ModelConfig, precision};
use crate::stage::Stage;
use kernels::InputPrecision;
use kernels::cpu::{quantised_row_bytes, rounded_row_bytes};
use proto::cluster::{RowBytes, WorkspaceShape};

/// What all ranks of a stage take together, known before anything is allocated. Estimates: a device may pack weights
/// a little tighter or looser than their formats say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ModelMemory {
    pub weight_bytes: u64,
    /// Of one block, over all its layers and ranks.
    pub kv_bytes_per_block: u64,
    /// Of one row of a pass.
    pub bytes_per_row: u64,
    /// Of one position that a sequence may have.
    pub bytes_per_position: u64,
    /// Of all rows whose logits are computed at once.
    pub logit_bytes: u64,
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
        let workspace = workspace_shape(config);
        let neighbours = u64::from(!stage.embeds()) + u64::from(!stage.samples());
        let logit_rows = match stage.samples() {
            true => u64::from(workspace.logit_rows_max),
            false => 0,
        };
        Ok(ModelMemory {
            weight_bytes: weight_bytes(config, gguf, stage, &cut)?,
            kv_bytes_per_block: (0..ranks)
                .map(|rank| kv_bytes(config, stage, &cut, rank) * u64::from(block_tokens))
                .sum(),
            // Rows that come, and rows that go.
            bytes_per_row: workspace.row.on(ranks as u32) + neighbours * f32s(config.hidden),
            bytes_per_position: position_bytes(config) * ranks as u64,
            logit_bytes: workspace.logit_row.on(ranks as u32) * logit_rows,
        })
    }

    /// To compute passes of so many rows, of sequences with so many positions at most. Pages of it are taken when a pass first
    /// has so many rows, or so many logits.
    pub fn workspace_bytes(&self, pass_rows_max: u32, positions: u32) -> u64 {
        let rows = self.bytes_per_row.saturating_mul(u64::from(pass_rows_max));
        let positions = self.bytes_per_position.saturating_mul(u64::from(positions));
        rows.saturating_add(positions).saturating_add(self.logit_bytes)
    }
}

/// Every rank of the first stage holds the whole embedding table; a tied one is held again, cut, where logits are cut.
fn weight_bytes(config: &ModelConfig, gguf: &Gguf<'_>, stage: &Stage, cut: &Cut) -> Result<u64, LoadError> {
    let needed = gguf
        .tensors()
        .filter(|tensor| stage.needs(tensor.name, config.output()));
    let once: u64 = needed.map(Tensor::packed_bytes).sum();
    if !stage.embeds() {
        return Ok(once);
    }
    let embedding = gguf.tensor("token_embd.weight")?.packed_bytes();
    let others = cut.ranks() as u64 - 1;
    let output = if stage.samples() && config.tied_embeddings && others > 0 {
        embedding
    } else {
        0
    };
    Ok(once + others * embedding + output)
}

/// Of one position.
fn kv_bytes(config: &ModelConfig, stage: &Stage, cut: &Cut, rank: usize) -> u64 {
    let row = 2 * cut.kv_heads(rank).len() * config.kv.head_bytes(config.head_dim);
    (row * stage.layers().len()) as u64
}

/// Sines and cosines.
pub(crate) fn position_bytes(config: &ModelConfig) -> u64 {
    f32s(config.rope.rotated)
}

/// What [`crate::model::Room`] has, and what kernels keep of a row that they multiply. A rank is taken to have all keys and
/// values, since it may need the heads of another one too.
pub(crate) fn workspace_shape(config: &ModelConfig) -> WorkspaceShape {
    let queries = config.heads * config.head_dim;
    let keys_and_values = 2 * config.kv_heads * config.head_dim;
    WorkspaceShape {
        row: RowBytes {
            each: f32s(2 * config.hidden + keys_and_values) + multiplied_bytes(config),
            cut: f32s(queries + 2 * config.feed_forward),
            gathered: f32s(config.hidden + queries + config.feed_forward),
            collected: 0,
        },
        logit_row: RowBytes {
            each: f32s(2 * config.hidden),
            cut: 0,
            gathered: 0,
            collected: f32s(config.vocabulary),
        },
        logit_rows_max: LOGIT_ROWS_MAX as u32,
    }
}

/// Of the input for which kernels need most: quantised, or rounded to bf16.
fn multiplied_bytes(config: &ModelConfig) -> u64 {
    let inputs: [(usize, InputPrecision); 4] = [
        (config.hidden, precision::QUERY_KEY_VALUE),
        (config.heads * config.head_dim, precision::ATTENTION_OUTPUT),
        (config.hidden, precision::GATE_UP),
        (config.feed_forward, precision::DOWN),
    ];
    let bytes = inputs
        .map(|(inputs, precision)| quantised_row_bytes(inputs, precision).max(rounded_row_bytes(inputs)));
    bytes.into_iter().max().unwrap_or(0) as u64
}

fn f32s(count: usize) -> u64 {
    (count * F32_BYTES) as u64
}
