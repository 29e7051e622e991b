//! Where the members are: the address book follows the log, and who is no member any more is cut off at once.

use super::PeerLinks;
use crate::raft::{AppliedState, Member};
use crate::transport::Peers;
use coordinator::voters;
use futures_util::future::join_all;
use proto::NodeId;
use proto::peer::{Nonce, PeerRequest};
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
                refusals = if is_refused(&member).await { refusals + 1 } else { 0 };
            }
        }
        let state = member.applied.read();
        if state.is_founded() && state.member(member.id).is_none() && state.was_given(member.id) {
            return;
        }
    }
}

async fn is_refused(member: &Member<PeerLinks>) -> bool {
    if !voters::is_removed(member.id, &member.voter_sets(), &member.links.peers.refused_by()) {
        return false;
    }
    // They may have said so before they had heard of this node, and nothing since.
    let peers = &member.links.peers;
    let ask = |node| peers.call(node, PeerRequest::Ping(Box::new(Nonce { nonce: 0 })));
    join_all(peers.refused_by().into_iter().map(ask)).await;
    voters::is_removed(member.id, &member.voter_sets(), &peers.refused_by())
}

fn addresses(own: NodeId, applied: &AppliedState) -> Vec<(NodeId, SocketAddr)> {
    let state = applied.read();
    let others = state.members().filter(|member| member.node != own);
    others
        .filter_map(|member| Some((member.node, member.quic.parse().ok()?)))
        .collect()
}
