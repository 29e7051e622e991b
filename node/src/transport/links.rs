//! The connections that there are.

use super::error::CloseCode;
use super::guard::Guard;
use super::protocol::{Class, Side};
use proto::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Of one class, from one node, that the node has dialled. Two, because the older one may be the one that works.
const ACCEPTED_MAX: usize = 2;

pub(super) struct Link {
    pub guard: Guard,
    pub class: Class,
    /// Which of the two we are.
    pub side: Side,
    pub since: Instant,
}

impl Link {
    fn is_open(&self) -> bool {
        self.guard.connection.close_reason().is_none()
    }

    fn is(&self, other: &Link) -> bool {
        self.guard.connection.stable_id() == other.guard.connection.stable_id()
    }
}

/// What a person or a metric wants to know about a connection.
#[derive(Clone, PartialEq, Debug)]
pub struct LinkView {
    pub node: NodeId,
    pub class: Class,
    /// `Opener`: this node has dialled.
    pub side: Side,
    pub address: SocketAddr,
    pub round_trip: Duration,
    /// How long it has been there.
    pub age: Duration,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub lost_packets: u64,
    pub sent_packets: u64,
    /// The largest packet that the path is known to carry.
    pub packet_bytes: u16,
}

#[derive(Default)]
pub(super) struct Links {
    of_nodes: Mutex<OfNodes>,
}

type OfNodes = BTreeMap<(NodeId, Class), Vec<Arc<Link>>>;

impl Links {
    /// The newest comes first when one is looked for: after a restart of the peer the older ones are dead.
    pub fn add(&self, link: Arc<Link>) {
        let mut of_nodes = self.lock();
        let links = of_nodes.entry((link.guard.node, link.class)).or_default();
        links.retain(|link| link.is_open());
        links.push(link);
        let accepted = links.iter().filter(|link| link.side == Side::Acceptor).count();
        if accepted > ACCEPTED_MAX
            && let Some(oldest) = links.iter().position(|link| link.side == Side::Acceptor)
        {
            CloseCode::Replaced.close(&links.remove(oldest).guard.connection);
        }
    }

    pub fn remove(&self, link: &Link) {
        let mut of_nodes = self.lock();
        let key = (link.guard.node, link.class);
        if let Some(links) = of_nodes.get_mut(&key) {
            links.retain(|known| !known.is(link));
            if links.is_empty() {
                of_nodes.remove(&key);
            }
        }
    }

    pub fn usable(&self, node: NodeId, class: Class) -> Option<Arc<Link>> {
        let of_nodes = self.lock();
        let links = of_nodes.get(&(node, class))?;
        links.iter().rev().find(|link| link.is_open()).cloned()
    }

    /// Closes those that `belongs` rejects.
    pub fn close_unless(&self, belongs: impl Fn(&Link) -> bool) {
        for link in self.lock().values().flatten() {
            if !belongs(link) {
                CloseCode::NotAMember.close(&link.guard.connection);
            }
        }
    }

    pub fn views(&self) -> Vec<LinkView> {
        let of_nodes = self.lock();
        let open = of_nodes.values().flatten().filter(|link| link.is_open());
        open.map(|link| view(link)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, OfNodes> {
        self.of_nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn view(link: &Link) -> LinkView {
    let connection = &link.guard.connection;
    let stats = connection.stats();
    LinkView {
        node: link.guard.node,
        class: link.class,
        side: link.side,
        address: connection.remote_address(),
        round_trip: stats.path.rtt,
        age: link.since.elapsed(),
        sent_bytes: stats.udp_tx.bytes,
        received_bytes: stats.udp_rx.bytes,
        lost_packets: stats.path.lost_packets,
        sent_packets: stats.path.sent_packets,
        packet_bytes: stats.path.current_mtu,
    }
}
