//! The first frame that a shard host reads: what to load and how.

use crate::config::low::KvCache;
use proto::join::Role;
use proto::stage::StagePart;
use proto::{Epoch, NodeId, ReplicaId};
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ShardSetup {
    pub replica: ReplicaId,
    pub epoch: Epoch,
    /// Its served name, for people.
    pub model: String,
    pub model_path: String,
    pub file: FileState,
    /// What the file's chunks must be: the canonical bytes of its [`Manifest`](crate::store::chunks::Manifest).
    pub manifest: Vec<u8>,
    /// Where packed weights are kept: the beginning of the files' names.
    pub packed: String,
    /// Tensor parallel ranks, each on threads of its own.
    pub ranks: u32,
    /// Compute threads over all ranks; at least `ranks`.
    pub threads: u32,
    pub kv_cache: KvCache,
    /// What it may take at most of the memory that is free.
    pub memory_bytes_max: Option<u64>,
    /// The best instruction set to use; `None`: whatever the CPU has.
    pub cpu_level: Option<String>,
    /// What the replica's place in the cluster says. `None`: the whole model is here, with as much cache as there is
    /// room for.
    pub placed: Option<PlacedSetup>,
}

/// How much of the model file is there.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileState {
    /// All that is needed.
    Here,
    /// What the model is: the file's beginning, and what belongs to no layer. The node tells what else can be read.
    Coming,
}

/// A stage that was placed here.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct PlacedSetup {
    /// What all stages have, in their order.
    pub parts: Vec<StagePart>,
    /// Which of them this is.
    pub stage: u16,
    /// `None` where there is only one.
    pub link: Option<LinkSetup>,
}

impl PlacedSetup {
    /// What this stage has.
    ///
    /// # Panics
    /// Where it is none of them.
    pub fn part(&self) -> StagePart {
        self.parts[usize::from(self.stage)]
    }

    /// Is it the last one?
    pub fn is_head(&self) -> bool {
        usize::from(self.stage) + 1 == self.parts.len()
    }
}

/// With whom a stage may speak, and as whom.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct LinkSetup {
    pub node: NodeId,
    /// Where the stage takes connections, at a free port.
    pub ip: String,
    /// PKCS#8 in PEM.
    pub key: String,
    /// DER, the node's own first.
    pub chain: Vec<Vec<u8>>,
    /// DER.
    pub authorities: Vec<Vec<u8>>,
    /// Of all stages, in their order.
    pub members: Vec<LinkMember>,
}

/// Without the key: it must not get into a log.
impl fmt::Debug for LinkSetup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LinkSetup")
            .field("node", &self.node)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// A node that has a stage of the same replica.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct LinkMember {
    pub node: NodeId,
    pub spki: [u8; 32],
    pub role: Role,
}
