//! Who is a member, for every message that comes in.

use crate::raft::AppliedState;
use crate::transport::Membership;
use crate::trust::SpkiHash;
use coordinator::cluster_state::ClusterState;
use proto::NodeId;
use proto::cluster::Role;
use proto::join::MemberAddress;

/// The committed members, as far as this node has heard.
pub struct CommittedMembership {
    pub applied: AppliedState,
    pub own: NodeId,
    /// Those whom the cluster named when it let this node in: believed until the log has been heard as far as that. A snapshot
    /// may be older than who leads now, who then is the only one that can tell the rest.
    pub named: Vec<MemberAddress>,
}

impl Membership for CommittedMembership {
    fn member(&self, spki: &SpkiHash) -> Option<(NodeId, Role)> {
        member(&self.applied.read(), self.own, &self.named, spki)
    }
}

fn member(
    state: &ClusterState,
    own: NodeId,
    named: &[MemberAddress],
    spki: &SpkiHash,
) -> Option<(NodeId, Role)> {
    if let Some(member) = state.member_by_key(spki) {
        return Some((member.node, member.role));
    }
    if state.is_founded() && state.was_given(own) {
        return None;
    }
    let named = named.iter().find(|member| member.spki == *spki);
    named.map(|member| (member.node, Role::Voter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::founded;
    use coordinator::cluster_state::{Applied, FOUNDER};
    use proto::cluster::{ClusterCommand, MemberIs, NewMember, Proposal, TokenRecord};

    const LEADER: NodeId = NodeId(6);
    const OWN: NodeId = NodeId(9);

    fn apply(state: &mut ClusterState, index: u64, command: ClusterCommand) -> Applied {
        let id = u128::from(index);
        state.apply(index, &Proposal { id, command }).unwrap()
    }

    /// At the index that becomes its id.
    fn join(state: &mut ClusterState, node: NodeId) {
        let token = TokenRecord {
            token: node.to_string(),
            secret_hash: [9; 32],
            role: Role::Voter,
            expires_at_secs: 100,
        };
        let newcomer = NewMember {
            token: token.token.clone(),
            secret_hash: [9; 32],
            spki: [node.0 as u8; 32],
            quic: String::new(),
            http: String::new(),
            level: 1,
            at_secs: 50,
        };
        apply(state, node.0 - 1, ClusterCommand::AddToken(Box::new(token)));
        let joined = apply(state, node.0, ClusterCommand::Join(Box::new(newcomer)));
        assert_eq!(joined, Applied::Member(node));
    }

    #[test]
    fn who_let_this_node_in_is_believed_until_its_own_joining_is_heard_of() {
        let named = [MemberAddress {
            node: LEADER,
            spki: [LEADER.0 as u8; 32],
            quic_address: "127.0.0.1:1".to_owned(),
        }];
        let look = |state: &ClusterState, key: u8| member(state, OWN, &named, &[key; 32]);
        assert_eq!(look(&ClusterState::default(), 6), Some((LEADER, Role::Voter)));
        // A snapshot from before the leader had joined, which only the leader can go on from.
        let mut state = founded();
        assert_eq!(look(&state, 1), Some((FOUNDER, Role::Voter)));
        assert_eq!(look(&state, 6), Some((LEADER, Role::Voter)));
        assert_eq!(look(&state, 7), None);
        join(&mut state, LEADER);
        join(&mut state, OWN);
        assert_eq!(look(&state, 6), Some((LEADER, Role::Voter)));
        let removal = MemberIs { node: LEADER };
        apply(&mut state, 10, ClusterCommand::RemoveMember(Box::new(removal)));
        assert_eq!(look(&state, 6), None);
    }
}
