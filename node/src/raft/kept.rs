//! What a disk holds, all of it read.

use super::disk::Disk;
use super::log_store::{LogRead, LogStore, OpenError};
use super::state_machine::KeptSnapshot;
use coordinator::cluster_state::ClusterState;
use openraft::EntryPayload;
use proto::cluster::ClusterCommand;
use std::collections::BTreeMap;

/// For Raft to start from.
pub(super) struct Kept {
    pub disk: Disk,
    pub log: LogRead,
    pub snapshot: Option<KeptSnapshot>,
}

impl Kept {
    pub fn read(mut disk: Disk) -> Result<Kept, OpenError> {
        let log = LogStore::read(&mut disk)?;
        let snapshot = disk.snapshot()?;
        let snapshot = snapshot.map(|snapshot| KeptSnapshot::read(&snapshot.meta, snapshot.data));
        Ok(Kept {
            log,
            snapshot: snapshot.transpose()?,
            disk,
        })
    }

    /// Whether log and snapshot go together. Who makes a new cluster out of them may have to take them as they are.
    pub fn check(&self) -> Result<(), OpenError> {
        self.log
            .check(self.snapshot.as_ref().and_then(|kept| kept.meta.last_log_id))
    }

    /// By id, with the place of the log that last says so, agreed on or not.
    pub fn revoked_keys(&self) -> BTreeMap<String, u64> {
        let revoked = self.log.entries_after(0).filter_map(|entry| {
            let EntryPayload::Normal(proposal) = &entry.payload else {
                return None;
            };
            let ClusterCommand::RevokeKey(key) = &proposal.command else {
                return None;
            };
            Some((key.key_id.clone(), entry.log_id.index))
        });
        revoked.collect()
    }
}

/// Gives the disk back where Raft may start from what it holds.
pub fn checked(disk: Disk) -> Result<Disk, OpenError> {
    let kept = Kept::read(disk)?;
    kept.check()?;
    Ok(kept.disk)
}

/// The state that the whole log leads to, agreed on or not.
pub struct WrittenState {
    pub state: ClusterState,
    /// Of the last entry.
    pub index: u64,
}

impl WrittenState {
    pub fn read(disk: Disk) -> Result<WrittenState, OpenError> {
        Ok(WrittenState::of(&Kept::read(disk)?))
    }

    pub(super) fn of(kept: &Kept) -> WrittenState {
        let mut written = match &kept.snapshot {
            Some(snapshot) => WrittenState {
                state: snapshot.state(),
                index: snapshot.meta.last_log_id.map_or(0, |id| id.index),
            },
            None => WrittenState {
                state: ClusterState::default(),
                index: 0,
            },
        };
        for entry in kept.log.entries_after(written.index) {
            written.index = entry.log_id.index;
            if let EntryPayload::Normal(proposal) = &entry.payload {
                // What is rejected changes nothing, here as everywhere.
                let _ = written.state.apply(written.index, proposal);
            }
        }
        written
    }
}
