//! openraft's own suite for stores.

use super::drive::Drive;
use crate::raft::AppliedState;
use crate::raft::disk::{Change, Disk};
use crate::raft::dispute::Disputed;
use crate::raft::journal::Journal;
use crate::raft::kept::Kept;
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::{KeptSnapshot, StateMachine};
use crate::raft::types::{Entry, LogId, SnapshotMeta, StorageError, TypeConfig, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, LogState, OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Our store, for a suite that in places begins a log at an index above 0, cuts it beyond its end without a snapshot, and
/// appends what was cut. Raft does none of it, and our store is right not to (a hole is never right), so here what is
/// missing is put in front, what was cut is left out, and a snapshot comes before each cut.
struct Filled {
    store: LogStore,
    journal: Journal,
    kept: watch::Sender<Option<KeptSnapshot>>,
}

impl RaftLogReader<TypeConfig> for Filled {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.store.try_get_log_entries(range).await
    }
}

impl RaftLogStorage<TypeConfig> for Filled {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.store.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.store.save_vote(vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.store.read_vote().await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.store.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        let state = self.store.get_log_state().await?;
        if let Some(purged) = state.last_purged_log_id {
            entries.retain(|entry| entry.log_id.index > purged.index);
        }
        if state.last_log_id.is_none() {
            let blank = |index| Entry {
                log_id: LogId::new(CommittedLeaderId::new(0, 0), index),
                payload: EntryPayload::Blank,
            };
            let first = entries.first().map_or(0, |entry| entry.log_id.index);
            entries.splice(0..0, (0..first).map(blank));
        }
        self.store.append(entries, flushed).await
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        self.store.truncate(from).await
    }

    async fn purge(&mut self, through: LogId) -> Result<(), StorageError> {
        let snapshot = Change::Snapshot {
            meta: Vec::new(),
            data: Vec::new(),
        };
        self.journal.write(vec![snapshot]).await.unwrap();
        self.kept.send_replace(Some(KeptSnapshot {
            meta: SnapshotMeta {
                last_log_id: Some(through),
                ..SnapshotMeta::default()
            },
            data: Arc::default(),
        }));
        self.store.purge(through).await
    }
}

fn stores(disk: Disk) -> (Filled, StateMachine) {
    let kept = Kept::read(disk).unwrap();
    let journal = Journal::start(kept.disk).unwrap();
    let machine = StateMachine::start(AppliedState::default(), kept.snapshot, journal.clone());
    let kept_now = watch::Sender::new(None);
    let filled = Filled {
        store: kept
            .log
            .store(journal.clone(), kept_now.subscribe(), Disputed::default()),
        journal,
        kept: kept_now,
    };
    (filled, machine)
}

struct InMemory;

impl StoreBuilder<TypeConfig, Filled, StateMachine> for InMemory {
    async fn build(&self) -> Result<((), Filled, StateMachine), StorageError> {
        let (store, machine) = stores(Drive::new(1).open().unwrap());
        Ok(((), store, machine))
    }
}

struct InFolders;

/// Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let name = u64::from_le_bytes(crate::random::bytes());
        let folder = std::env::temp_dir().join(format!("cluster-raft-suite-{name:016x}"));
        std::fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl StoreBuilder<TypeConfig, Filled, StateMachine, Folder> for InFolders {
    async fn build(&self) -> Result<(Folder, Filled, StateMachine), StorageError> {
        let folder = Folder::new();
        let (store, machine) = stores(Disk::make(folder.path()).unwrap());
        Ok((folder, store, machine))
    }
}

#[test]
fn our_store_passes_in_memory() {
    Suite::test_all(InMemory).unwrap();
}

#[test]
fn our_store_passes_in_a_folder() {
    Suite::test_all(InFolders).unwrap();
}
