//! Where the members are: the address book follows the log, and who is no member any more is cut off at once.

use crate::raft::AppliedState;
use crate::transport::Peers;
use proto::NodeId;
use std::collections::BTreeSet;
use std::net::SocketAddr;

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

fn addresses(own: NodeId, applied: &AppliedState) -> Vec<(NodeId, SocketAddr)> {
    let state = applied.read();
    let others = state.members().filter(|member| member.node != own);
    others
        .filter_map(|member| Some((member.node, member.quic.parse().ok()?)))
        .collect()
}
