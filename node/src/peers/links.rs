//! Raft's messages over the connections between nodes.

use crate::raft::{LinkError, Links};
use crate::transport::{Class, PeerError, Peers};
use proto::NodeId;
use proto::cluster::Proposal;
use proto::peer::{PeerAnswer, PeerRequest, ReadRequest};
use proto::raft::{CommandAnswer, RaftAnswer, RaftRequest, ReadAnswer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Cheap to copy.
#[derive(Clone)]
pub struct PeerLinks {
    pub peers: Peers,
    /// When a connection with it was last there.
    seen: Arc<Mutex<BTreeMap<NodeId, Instant>>>,
}

impl PeerLinks {
    pub fn new(peers: Peers) -> PeerLinks {
        PeerLinks {
            peers,
            seen: Arc::default(),
        }
    }

    async fn call(
        &self,
        to: NodeId,
        request: PeerRequest,
        within: Duration,
    ) -> Result<PeerAnswer, LinkError> {
        let answer = self.peers.call_within(to, request, within).await;
        answer.map_err(|error| in_raft(to, &error))
    }
}

/// Only what was never sent may be taken for not done.
fn in_raft(node: NodeId, error: &PeerError) -> LinkError {
    let reason = error.to_string();
    match error {
        PeerError::NoAddress(_) | PeerError::Unreachable { .. } => LinkError::Unreachable { node, reason },
        PeerError::Deadline { .. } | PeerError::Link(_) => LinkError::Unanswered { node, reason },
    }
}

fn amiss(node: NodeId, answer: PeerAnswer) -> LinkError {
    let reason = answer.amiss();
    LinkError::Unreachable { node, reason }
}

impl Links for PeerLinks {
    async fn raft(
        &self,
        to: NodeId,
        request: RaftRequest,
        within: Duration,
    ) -> Result<RaftAnswer, LinkError> {
        let request = PeerRequest::Raft(Box::new(request));
        match self.call(to, request, within).await? {
            PeerAnswer::Raft(answer) => Ok(*answer),
            answer => Err(amiss(to, answer)),
        }
    }

    async fn command(
        &self,
        to: NodeId,
        proposal: Proposal,
        within: Duration,
    ) -> Result<CommandAnswer, LinkError> {
        let request = PeerRequest::Command(Box::new(proposal));
        match self.call(to, request, within).await? {
            PeerAnswer::Command(answer) => Ok(*answer),
            answer => Err(amiss(to, answer)),
        }
    }

    async fn read_index(&self, to: NodeId, within: Duration) -> Result<ReadAnswer, LinkError> {
        let request = PeerRequest::ReadIndex(Box::new(ReadRequest {}));
        match self.call(to, request, within).await? {
            PeerAnswer::ReadIndex(answer) => Ok(*answer),
            answer => Err(amiss(to, answer)),
        }
    }

    /// A connection for control ends two seconds after the other side has gone silent.
    fn silent(&self, node: NodeId) -> Duration {
        let mut links = self.peers.links().into_iter();
        let is_there = links.any(|link| link.node == node && link.class == Class::Control);
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.entry(node).or_insert(now);
        if is_there {
            *last = now;
        }
        now - *last
    }
}
