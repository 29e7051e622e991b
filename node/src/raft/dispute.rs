//! Two logs that contradict each other about what was agreed on.
//!
//! Raft makes that impossible while no voter forgets what it has acknowledged. The witness beside the log tells a node that
//! its log went back; a data folder that goes back as a whole (an old copy, a snapshot of the machine) takes the witness with
//! it. If another voter was away meanwhile, the two may agree on something else, and what came before is known only to who
//! comes back later. openraft believes there that what was committed matches any leader's log, so it is looked at here.

use super::convert;
use super::disk::Change;
use super::log_store::{Known, OpenError};
use super::member::OpenDisk;
use super::types::LogId;
use openraft::CommittedLeaderId;
use proto::raft as ours;
use proto::wire::{self, Kind};
use std::sync::Arc;
use tokio::sync::watch;

/// Wrote no entry.
const NOBODYS: CommittedLeaderId<u64> = CommittedLeaderId {
    term: u64::MAX,
    node_id: u64::MAX,
};

/// That such a thing was seen in this run of a node. Copies are the same.
#[derive(Clone, Default)]
pub struct Disputed(watch::Sender<Option<LogId>>);

impl Disputed {
    /// `other`: what somebody else holds for agreed, in the place of what this node does.
    pub fn raise(&self, other: LogId) {
        self.0.send_if_modified(|seen| {
            let is_first = seen.is_none();
            seen.get_or_insert(other);
            is_first
        });
    }

    pub fn seen(&self) -> Option<LogId> {
        *self.0.borrow()
    }

    pub async fn raised(&self) {
        let mut seen = self.0.subscribe();
        let waited = seen.wait_for(Option::is_some).await;
        waited.expect("the sender lives in self");
    }
}

/// Written in the place of what this log knows to be committed, which it then contradicts at every start.
fn mark(other: LogId) -> Change {
    Change::Committed(wire::frame(Kind::RaftLogId, 0, &convert::log_id(&other)))
}

/// On what the disk holds, and notes there first what it contradicts.
pub fn marking(open: &OpenDisk, other: LogId) -> OpenDisk {
    let open = Arc::clone(open);
    Arc::new(move || {
        let mut disk = open()?;
        disk.commit(&[mark(other)])?;
        Ok(disk)
    })
}

impl Known {
    fn id_at(&self, index: u64) -> Option<LogId> {
        let entry = self.entries.get(&index).map(|entry| entry.log_id);
        entry.or(self.purged.filter(|purged| purged.index == index))
    }

    /// Can `id` be where everything up to `agreed` is settled? Terms never fall in a log, also where its beginning is cut off.
    fn fits(&self, id: LogId, agreed: LogId) -> bool {
        match self.id_at(id.index) {
            Some(own) => own == id,
            None => id.index <= agreed.index && id.leader_id <= agreed.leader_id,
        }
    }

    /// What a leader sends that stands against what is settled here. It has all of that, if nobody forgot anything.
    pub fn disputed_by(&self, append: &ours::Append) -> Option<LogId> {
        let vote = convert::vote_back(&append.vote);
        // What an earlier leader sent may have been overruled since, and Raft refuses it.
        let is_current = self.vote.is_none_or(|own| vote >= own);
        let agreed = self.committed.max(self.purged).filter(|_| is_current)?;
        let entries = append.entries.iter().map(|entry| &entry.id);
        let mut settled = append.previous.iter().chain(entries).map(convert::log_id_back);
        let other = settled.find(|id| id.index <= agreed.index && !self.fits(*id, agreed));
        other.or_else(|| append.entries.iter().find_map(|entry| self.twin(entry)))
    }

    /// A leader that was set back within its own term gives the same names to other entries.
    fn twin(&self, entry: &ours::Entry) -> Option<LogId> {
        let own = self.entries.get(&entry.id.index)?;
        let is_twin = own.log_id == convert::log_id_back(&entry.id) && convert::entry(own) != *entry;
        is_twin.then(|| LogId::new(NOBODYS, entry.id.index))
    }

    /// What the leader holds in the place of `from`, where that is settled and should be cut off.
    pub fn disputed_by_cut(&self, from: LogId) -> Option<LogId> {
        let agreed = self.committed.max(self.purged)?;
        let leader = self.vote?.leader_id;
        let other = CommittedLeaderId::new(leader.term, leader.node_id);
        (from.index <= agreed.index).then(|| LogId::new(other, from.index))
    }

    /// Whether entries, what is committed and a snapshot up to `snapshot` go together.
    pub fn check(&self, snapshot: Option<LogId>) -> Result<(), OpenError> {
        let ids = self.entries.values().map(|entry| entry.log_id);
        let mut before = self.purged;
        for id in ids {
            if before.is_some_and(|before| before >= id) {
                return Err(OpenError::Misplaced { index: id.index });
            }
            before = Some(id);
        }
        let base = snapshot.max(self.purged);
        for id in [self.committed, snapshot].into_iter().flatten() {
            if !self.fits(id, base.unwrap_or_default()) {
                return Err(OpenError::Disputed { index: id.index });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{Entry, Vote};
    use openraft::EntryPayload;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, term), index)
    }

    /// From behind `purged` on, entries of these terms.
    fn log(purged: Option<LogId>, terms: &[u64], committed: Option<LogId>) -> Known {
        let first = purged.map_or(0, |purged| purged.index + 1);
        let entries = (first..).zip(terms).map(|(index, term)| {
            let entry = Entry {
                log_id: id(*term, index),
                payload: EntryPayload::Blank,
            };
            (index, entry)
        });
        Known {
            entries: entries.collect(),
            vote: Some(Vote::new_committed(3, 3)),
            purged,
            committed,
        }
    }

    fn append(term: u64, previous: LogId, entries: &[LogId]) -> ours::Append {
        ours::Append {
            vote: convert::vote(&Vote::new_committed(term, term)),
            previous: Some(convert::log_id(&previous)),
            entries: entries
                .iter()
                .map(|id| ours::Entry {
                    id: convert::log_id(id),
                    payload: ours::Payload::Blank,
                })
                .collect(),
            committed: None,
        }
    }

    #[test]
    fn a_leader_without_what_was_agreed_on_is_found_out() {
        let log = log(Some(id(1, 1)), &[1, 2, 2, 2], Some(id(2, 4)));
        let disputed = |append| log.disputed_by(&append);
        assert_eq!(disputed(append(3, id(2, 3), &[id(2, 4), id(3, 5)])), None);
        assert_eq!(disputed(append(4, id(2, 3), &[id(4, 4)])), Some(id(4, 4)));
        assert_eq!(disputed(append(4, id(4, 3), &[])), Some(id(4, 3)));
        // Behind what was agreed on all is open, and before the log's beginning only terms are known.
        assert_eq!(disputed(append(4, id(4, 5), &[])), None);
        assert_eq!(disputed(append(4, id(1, 0), &[])), None);
        assert_eq!(disputed(append(4, id(3, 0), &[])), Some(id(3, 0)));
        // What comes late from an earlier leader proves nothing.
        assert_eq!(disputed(append(2, id(2, 3), &[id(1, 4)])), None);
    }

    #[test]
    fn another_entry_under_a_name_that_is_taken_is_found_out() {
        let mut log = log(Some(id(1, 1)), &[1, 2, 2, 2], Some(id(2, 4)));
        let mut sent = append(3, id(2, 3), &[id(2, 4), id(2, 5)]);
        assert_eq!(log.disputed_by(&sent), None);
        sent.entries[1].payload = ours::Payload::Membership(Box::default());
        let other = log.disputed_by(&sent).unwrap();
        assert_eq!(other.index, 5);
        log.committed = Some(other);
        assert!(log.check(Some(id(1, 1))).is_err());
    }

    #[test]
    fn what_was_agreed_on_is_not_cut_off() {
        let log = log(None, &[0, 1, 1, 1], Some(id(1, 2)));
        assert_eq!(log.disputed_by_cut(id(1, 3)), None);
        assert_eq!(log.disputed_by_cut(id(1, 2)), Some(id(3, 2)));
    }

    #[test]
    fn what_a_crash_leaves_goes_together() {
        let whole = [
            (log(None, &[], None), None),
            (log(None, &[0, 1, 2], None), None),
            (log(None, &[0, 1, 2], Some(id(1, 1))), None),
            // A snapshot came, and the log is still to be cut.
            (log(None, &[0, 1, 2], Some(id(1, 1))), Some(id(2, 9))),
            // What is known to be committed lags behind.
            (log(Some(id(2, 9)), &[2], Some(id(1, 1))), Some(id(2, 9))),
            (log(Some(id(2, 9)), &[2, 3], Some(id(2, 10))), Some(id(2, 10))),
        ];
        for (number, (log, snapshot)) in whole.iter().enumerate() {
            assert!(log.check(*snapshot).is_ok(), "{number}");
        }
    }

    #[test]
    fn what_contradicts_the_log_is_damage() {
        let damaged = [
            // Another entry was agreed on.
            (log(None, &[0, 1, 1], Some(id(2, 1))), None),
            (log(None, &[0, 1, 1], None), Some(id(2, 2))),
            (log(Some(id(2, 9)), &[2], Some(id(3, 4))), Some(id(2, 9))),
            // What was agreed on is not there.
            (log(None, &[0, 1, 1], Some(id(1, 3))), None),
            (log(Some(id(2, 9)), &[2], Some(id(2, 11))), Some(id(2, 9))),
            (log(None, &[], Some(id(1, 3))), None),
            // No log grows so.
            (log(None, &[0, 2, 1], None), None),
        ];
        for (number, (log, snapshot)) in damaged.iter().enumerate() {
            assert!(
                log.check(*snapshot).is_err_and(|error| error.is_damage()),
                "{number}"
            );
        }
    }

    #[test]
    fn a_mark_makes_the_log_contradict_itself() {
        let mut log = log(Some(id(1, 1)), &[1, 2, 2, 2], Some(id(2, 4)));
        for other in [id(4, 4), id(4, 3), id(3, 0)] {
            log.committed = Some(other);
            assert!(log.check(Some(id(1, 1))).is_err(), "{other}");
        }
    }
}
