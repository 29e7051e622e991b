use proto::{NodeId, ReplicaId};
use std::collections::BTreeSet;

/// What is seen of nodes and replicas beside what the log says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sight {
    /// Nodes that have been silent for too long.
    pub lost: BTreeSet<NodeId>,
    /// Of what is placed, what serves where it is placed now.
    pub serving: BTreeSet<ReplicaId>,
}
