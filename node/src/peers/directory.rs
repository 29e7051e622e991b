//! Where the members are: the address book follows the log, and who is no member any more is cut off at once.

use super::PeerLinks;
use crate::raft::{AppliedState, Member};
use crate::transport::Peers;
use proto::NodeId;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::sleep;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const REFUSALS_MIN: u32 = 6;

/// For as long as the node lives.
pub async fn follow(own: NodeId, applied: AppliedState, peers: Peers) {
    let mut changes = applied.changes();
    let mut known = BTreeSet::new();
    loop {
        let addresses = addresses(own, &applied);
        let now: BTreeSet<NodeId> = addresses.iter().map(|(node, _)| *node).collect();
        for (node, address) in addresses {
            peers.set_address(node, address);
        }
        for gone in known.difference(&now) {
            tracing::info!(node = %gone, "no member any more; its connections are cut");
            peers.cut_off(*gone);
        }
        peers.sweep();
        known = now;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Returns when the cluster has removed this node: it reads so in its log, or most of those who vote say so for a while.
pub async fn removed(member: Member<PeerLinks>) {
    let mut changes = member.applied.changes();
    let mut refusals = 0;
    while refusals < REFUSALS_MIN {
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep(LOOK_EVERY) => {
                refusals = if is_refused(&member) { refusals + 1 } else { 0 };
            }
        }
        let state = member.applied.read();
        if state.is_founded() && state.member(member.id).is_none() && state.was_given(member.id) {
            return;
        }
    }
}

fn is_refused(member: &Member<PeerLinks>) -> bool {
    let refused_by = member.links.peers.refused_by();
    let voters = member.view().voters;
    let others = voters.iter().filter(|voter| **voter != member.id).count();
    let saying = voters.iter().filter(|voter| refused_by.contains(voter)).count();
    others > 0 && saying * 2 > others
}

fn addresses(own: NodeId, applied: &AppliedState) -> Vec<(NodeId, SocketAddr)> {
    let state = applied.read();
    let others = state.members().filter(|member| member.node != own);
    others
        .filter_map(|member| Some((member.node, member.quic.parse().ok()?)))
        .collect()
}
