use super::drive::Drive;
use super::network::Network;
use proto::NodeId;
use proto::wire::{self, Kind};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks at all nodes all the time, and panics when what must never be is.
pub struct Watch {
    network: Network,
    /// The state after the entry of this index: a checksum of its image.
    states: BTreeMap<u64, u32>,
    keys: BTreeMap<NodeId, [u8; 32]>,
    progress: BTreeMap<NodeId, Progress>,
}

/// What never goes back while a node runs.
#[derive(Clone, Debug)]
struct Progress {
    drive: Drive,
    /// Term, candidate, and whether it was elected: who votes for a later one of the same term has taken a vote back.
    vote: (u64, u64, bool),
    applied: u64,
}

impl Watch {
    pub fn of(network: &Network) -> Watch {
        Watch {
            network: network.clone(),
            states: BTreeMap::new(),
            keys: BTreeMap::new(),
            progress: BTreeMap::new(),
        }
    }

    /// Until it is dropped.
    pub async fn run(mut self) {
        loop {
            self.look();
            sleep(LOOK_EVERY).await;
        }
    }

    fn look(&mut self) {
        let running = self.network.nodes();
        self.progress.retain(|node, _| running.contains(node));
        for node in running {
            self.look_at(node);
        }
    }

    fn look_at(&mut self, node: NodeId) {
        let Some((member, drive)) = self.network.member(node) else {
            return;
        };
        let Ok(raft) = member.raft() else {
            self.progress.remove(&node);
            return;
        };
        let metrics = raft.metrics().borrow().clone();
        for voters in metrics.membership_config.membership().get_joint_config() {
            assert!(voters.len() % 2 == 1, "{voters:?} vote");
        }
        let applied = *member.applied.changes().borrow();
        let vote = metrics.vote;
        let now = Progress {
            drive,
            vote: (vote.leader_id.term, vote.leader_id.node_id, vote.committed),
            applied,
        };
        let before = self.progress.insert(node, now.clone());
        if let Some(before) = before.filter(|before| before.drive.is(&now.drive)) {
            let is_forward = now.vote >= before.vote && now.applied >= before.applied;
            assert!(is_forward, "{node} went back from {before:?} to {now:?}");
        }
        self.look_at_state(node, applied);
    }

    fn look_at_state(&mut self, node: NodeId, applied: u64) {
        let Some((member, _)) = self.network.member(node) else {
            return;
        };
        let state = member.applied.read();
        let frame = wire::frame(Kind::ClusterImage, 0, &state.image());
        let sum = crc32fast::hash(&frame);
        let known = *self.states.entry(applied).or_insert(sum);
        assert_eq!(known, sum, "{node} applied something else up to {applied}");
        for member in state.members() {
            let key = *self.keys.entry(member.node).or_insert(member.spki);
            assert_eq!(key, member.spki, "{} is two nodes", member.node);
        }
    }
}
