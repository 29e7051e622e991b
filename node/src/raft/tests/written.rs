//! What the disks of a cluster hold, looked at from the outside.

use super::cluster::Cluster;
use crate::raft::kept::Kept;
use crate::raft::types::{Entry, Membership};
use openraft::EntryPayload;
use proto::NodeId;
use std::collections::{BTreeMap, BTreeSet};

impl Cluster {
    /// The log of a node, from index 1 or from behind its snapshot.
    pub fn log(&self, node: NodeId) -> Vec<Entry> {
        let kept = Kept::read(self.drives[&node].copy().open().unwrap()).unwrap();
        kept.log.entries_after(0).cloned().collect()
    }

    /// Where two logs hold an entry of one index, it is the same one.
    pub fn assert_logs_match(&self) {
        let mut known: BTreeMap<u64, (NodeId, Entry)> = BTreeMap::new();
        for node in self.drives.keys() {
            for entry in self.log(*node) {
                let index = entry.log_id.index;
                let (other, same) = known.entry(index).or_insert_with(|| (*node, entry.clone()));
                assert_eq!(*same, entry, "index {index} of {other} and {node}");
            }
        }
    }

    /// Each change of who votes goes through both sets at once, no other one begins in between, and the number that vote
    /// is odd. Gives how many memberships were logged.
    pub fn assert_orderly_memberships(&self, node: NodeId) -> usize {
        let log = self.log(node);
        let memberships: Vec<&Membership> = log
            .iter()
            .filter_map(|entry| match &entry.payload {
                EntryPayload::Membership(membership) => Some(membership),
                EntryPayload::Blank | EntryPayload::Normal(_) => None,
            })
            .collect();
        for membership in &memberships {
            for voters in membership.get_joint_config() {
                assert!(voters.len() % 2 == 1, "{memberships:?}");
            }
        }
        for pair in memberships.windows(2) {
            let (before, after) = (pair[0].get_joint_config(), pair[1].get_joint_config());
            let is_step = match (before.as_slice(), after.as_slice()) {
                // Learners come and go.
                ([one], [same]) => one == same,
                ([one], [old, _new]) => one == old,
                ([_old, new], [one]) => one == new || is_old(before, one),
                _ => false,
            };
            assert!(is_step, "from {before:?} to {after:?} in {memberships:?}");
        }
        memberships.len()
    }
}

/// A change may also be taken back.
fn is_old(before: &[BTreeSet<u64>], one: &BTreeSet<u64>) -> bool {
    before.first() == Some(one)
}
