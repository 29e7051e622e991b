//! What there is to see of a member.

use super::member::UNHEARD_MILLIS_MAX;
use openraft::{EmptyNode, RaftMetrics};
use proto::NodeId;

/// For status and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberView {
    pub leader: Option<NodeId>,
    pub term: u64,
    pub last_index: u64,
    pub applied_index: u64,
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    /// What keeps this node from taking part, or from writing.
    pub trouble: Option<String>,
}

impl MemberView {
    /// Of one that takes no part.
    pub fn away(reason: String) -> MemberView {
        MemberView {
            leader: None,
            term: 0,
            last_index: 0,
            applied_index: 0,
            voters: Vec::new(),
            learners: Vec::new(),
            trouble: Some(reason),
        }
    }
}

/// A leader that its voters have not answered for a while, or not at all since it started again, leads nobody.
pub fn leader_of(metrics: &RaftMetrics<u64, EmptyNode>) -> Option<NodeId> {
    let is_alone = metrics.membership_config.voter_ids().count() == 1;
    let is_stale = metrics
        .millis_since_quorum_ack
        .is_none_or(|millis| millis > UNHEARD_MILLIS_MAX);
    match metrics.current_leader {
        Some(leader) if leader == metrics.id && is_stale && !is_alone => None,
        leader => leader.map(NodeId),
    }
}
