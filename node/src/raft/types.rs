//! The types that openraft is filled with.

use openraft::EmptyNode;
use proto::cluster::{Outcome, Proposal};
use std::io::Cursor;

/// Starts the tasks of Raft and tells it the time. The one that tests have can stop all tasks of a node.
#[cfg(not(test))]
pub type Runtime = openraft::impls::TokioRuntime;
#[cfg(test)]
pub type Runtime = super::tests::stoppable::StoppableRuntime;

openraft::declare_raft_types!(
    /// Nodes carry no address here: where they are stands in the committed members.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = EmptyNode,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

pub type Raft = openraft::Raft<TypeConfig>;
pub type Entry = openraft::Entry<TypeConfig>;
pub type LogId = openraft::LogId<u64>;
pub type Vote = openraft::Vote<u64>;
pub type Membership = openraft::Membership<u64, EmptyNode>;
pub type StoredMembership = openraft::StoredMembership<u64, EmptyNode>;
pub type SnapshotMeta = openraft::SnapshotMeta<u64, EmptyNode>;
pub type Snapshot = openraft::Snapshot<TypeConfig>;
pub type StorageError = openraft::StorageError<u64>;
