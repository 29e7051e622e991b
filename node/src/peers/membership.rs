//! Who is a member, for every message that comes in.

use crate::raft::AppliedState;
use crate::transport::Membership;
use crate::trust::SpkiHash;
use proto::NodeId;
use proto::cluster::Role;
use proto::join::MemberAddress;

/// The committed members, as far as this node has heard.
pub struct CommittedMembership {
    pub applied: AppliedState,
    /// Those whom the cluster named when it let this node in: believed until the log itself has been heard.
    pub named: Vec<MemberAddress>,
}

impl Membership for CommittedMembership {
    fn member(&self, spki: &SpkiHash) -> Option<(NodeId, Role)> {
        let state = self.applied.read();
        if state.is_founded() {
            return state.member_by_key(spki).map(|member| (member.node, member.role));
        }
        let named = self.named.iter().find(|member| member.spki == *spki);
        named.map(|member| (member.node, Role::Voter))
    }
}
