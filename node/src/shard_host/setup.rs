//! The first frame that a shard host reads: what to load and how.

use crate::config::low::KvCache;
use proto::{Epoch, ReplicaId};
use rkyv::{Archive, Deserialize, Serialize};

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ShardSetup {
    pub replica: ReplicaId,
    pub epoch: Epoch,
    /// Its served name, for people.
    pub model: String,
    pub model_path: String,
    /// Where packed weights are kept: the beginning of the files' names.
    pub packed: String,
    /// Tensor parallel ranks, each on threads of its own.
    pub ranks: u32,
    /// Compute threads over all ranks; at least `ranks`.
    pub threads: u32,
    pub kv_cache: KvCache,
    /// The best instruction set to use; `None`: whatever the CPU has.
    pub cpu_level: Option<String>,
}
