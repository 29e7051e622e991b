//! A state that outlives its members: after a restore, or when the majority is lost for good.

use super::ClusterState;
use proto::NodeId;
use proto::cluster::{MemberRecord, Role};

/// The only member of the cluster from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sole {
    /// Above every id that was ever given: see [`ClusterState::id_above`].
    pub node: NodeId,
    pub spki: [u8; 32],
    /// DER certificate of the authority, maybe a new one.
    pub authority: Vec<u8>,
    pub level: u32,
    pub at_secs: u64,
}

impl ClusterState {
    /// An id that was never given, for a log that has got as far as `index`.
    pub fn id_above(&self, index: u64) -> NodeId {
        NodeId(index.max(self.node_max.0) + 1)
    }

    /// Tenants, keys, models and what is deployed stay; nodes, their replicas and the tokens for new ones go. A model that no
    /// deployment names stays until a node says what it serves: the sole one serves it, unless it is told otherwise.
    ///
    /// # Panics
    /// When the id was given before.
    pub fn reborn(mut self, sole: &Sole) -> ClusterState {
        assert!(sole.node > self.node_max, "node ids are never given twice");
        let member = MemberRecord {
            node: sole.node,
            spki: sole.spki,
            role: Role::Voter,
            quic: String::new(),
            http: String::new(),
            level: sole.level,
            joined_at_secs: sole.at_secs,
        };
        self.members = [(sole.node, member)].into();
        self.node_max = sole.node;
        self.authorities = vec![sole.authority.clone()];
        self.tokens.clear();
        self.drained.clear();
        self.replicas.clear();
        self.profiles.clear();
        self.placements.clear();
        self
    }
}
