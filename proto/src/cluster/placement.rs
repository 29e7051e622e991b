//! Models that are deployed to the cluster, what nodes can carry of them, and where they were put. Persisted and sent:
//! fields never change.

use super::rates::{NodeRates, Products};
use super::record::ModelRecord;
use crate::{NodeId, ReplicaId};
use rkyv::{Archive, Deserialize, Serialize};

/// What a node can do for models that are placed on it, as it measured itself.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeProfile {
    pub node: NodeId,
    /// For everything that is placed here, together. What the node serves by its own choice is not in it.
    pub memory_bytes: u64,
    /// Of computation.
    pub threads: u32,
    pub rates: NodeRates,
    /// To other nodes, as far as they were measured.
    pub links: Vec<LinkProfile>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkProfile {
    pub to: NodeId,
    pub bytes_per_sec: u64,
    pub round_trip_ns: u64,
}

/// The sizes of a model, by which it is cut into stages.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct ModelShape {
    pub layers: u32,
    /// Numbers in the row of one position that goes from layer to layer.
    pub hidden: u32,
    pub heads: u32,
    pub kv_heads: u32,
    /// Numbers in a query, key or value of one head.
    pub head_dim: u32,
    pub context_tokens_max: u32,
    /// As packed in memory, one for each layer.
    pub layer_weight_bytes: Vec<u64>,
    /// What every row is multiplied with, for each layer.
    pub layer_products: Vec<Vec<Products>>,
    /// On the first stage only: the table of embeddings.
    pub embedding_bytes: u64,
    /// On the last stage only: the last norm and the output matrix, which is counted here also where it is the table of
    /// embeddings again.
    pub head_bytes: u64,
    /// Of these two, what a single rank that has both ends holds once: the table of embeddings, where logits are made with it.
    pub tied_bytes: u64,
    /// On every stage: what belongs to no layer, and the process itself.
    pub common_bytes: u64,
    /// With the output matrix, of rows whose logits are wanted.
    pub head_products: Products,
    /// Keys and values of one position in one layer.
    pub kv_bytes_per_token_layer: u64,
    /// As the deployment's: it decides how fast attention is.
    pub kv_cache: KvCacheFormat,
    /// On every rank, for each position that a sequence may have: how it is rotated.
    pub position_bytes: u64,
    /// Room to compute in.
    pub workspace: WorkspaceShape,
    /// Positions in a block of KV cache.
    pub block_tokens: u32,
}

/// What a stage computes in, by the rows that it computes at once.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkspaceShape {
    /// For each row of a step.
    pub row: RowBytes,
    /// On the last stage, for each row whose logits are computed at once.
    pub logit_row: RowBytes,
    /// So many of these there are at most, whatever a step asks for.
    pub logit_rows_max: u32,
}

/// What one row takes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowBytes {
    /// On every rank.
    pub each: u64,
    /// Shared out among ranks.
    pub cut: u64,
    /// Computed in parts, and then needed whole by every rank.
    pub gathered: u64,
    /// Computed in parts, and then needed whole by the first rank.
    pub collected: u64,
}

/// A model that the cluster is to serve, wherever there is room.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Deployment {
    pub model: ModelRecord,
    /// SHA-256 of the list of its chunks' digests. Zeros: unknown.
    pub manifest: [u8; 32],
    pub shape: ModelShape,
    /// How many copies; 0 keeps it known and runs none.
    pub replicas: u32,
    /// Tensor parallel, of every stage inside its node; at least 1.
    pub ranks: u32,
    /// How keys and values are kept, on all its nodes: the shape's bytes are of this.
    pub kv_cache: KvCacheFormat,
}

/// See [`Deployment::kv_cache`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KvCacheFormat {
    #[default]
    Bf16,
    Int8,
}

/// A run of layers on one node.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StagePlace {
    pub node: NodeId,
    pub layer_first: u32,
    /// One after the last.
    pub layer_end: u32,
    /// Tensor parallel, inside the node.
    pub ranks: u32,
    /// Of all ranks together.
    pub threads: u32,
    /// Of the node's budget: weights, KV cache and workspace.
    pub memory_bytes: u64,
}

/// A replica of a deployed model: stages that pass positions on to each other.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    pub model: String,
    /// In a command, 0 asks for a new one; in a state it is the replica's.
    pub replica: ReplicaId,
    /// In the order of the layers. The replica's engine runs beside the last one.
    pub stages: Vec<StagePlace>,
    /// Of KV cache, the same number on every stage.
    pub blocks: u32,
    /// Rows of a step at most; every stage has room to compute so many.
    pub step_tokens_max: u32,
    pub predicted: Prediction,
}

/// What a placement was expected to do when it was made.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Prediction {
    /// Thousandths of a token, all streams together: with 1, 16 and 128 streams.
    pub decode_1_millitokens_per_sec: u64,
    pub decode_16_millitokens_per_sec: u64,
    pub decode_128_millitokens_per_sec: u64,
    pub prefill_millitokens_per_sec: u64,
    /// Of a prompt of 512 tokens, when nothing else runs.
    pub first_token_micros: u64,
    /// Of a stage's time, the part in which it waits for others, on average, with 128 streams.
    pub bubble_per_mille: u32,
}

impl RowBytes {
    /// On all ranks together. Where there are several, each has its part of what is gathered, the whole on its way, and the
    /// whole; of what is collected each has its part, and the first the whole.
    pub fn on(&self, ranks: u32) -> u64 {
        let ranks = u64::from(ranks);
        let (gathered, collected) = match ranks {
            0..=1 => (1, 1),
            _ => (2 * ranks + 1, 2),
        };
        self.each
            .saturating_mul(ranks)
            .saturating_add(self.cut)
            .saturating_add(self.gathered.saturating_mul(gathered))
            .saturating_add(self.collected.saturating_mul(collected))
    }
}

impl Placement {
    /// The node of the last stage, beside which the replica's engine runs. `None`: it has no stages.
    pub fn head(&self) -> Option<NodeId> {
        self.stages.last().map(|stage| stage.node)
    }
}
