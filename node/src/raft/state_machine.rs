//! What was committed, applied: the cluster's state in memory, and its snapshots in the journal.

use super::convert;
use super::disk::Change;
use super::journal::Journal;
use super::log_store::{self, OpenError};
use super::types::{Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig};
use coordinator::cluster_state::{Applied, ClusterState};
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use proto::cluster::{ClusterImage, Outcome};
use proto::wire::{self, Kind};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// The state that everything in the node reads. Cheap to copy; all copies show the same.
#[derive(Clone)]
pub struct AppliedState {
    state: Arc<RwLock<ClusterState>>,
    /// The index of the last entry that is in it.
    index: watch::Sender<u64>,
    /// Keys that the log revokes, with the places.
    doubted: Arc<RwLock<BTreeMap<String, u64>>>,
}

impl Default for AppliedState {
    fn default() -> Self {
        AppliedState {
            state: Arc::default(),
            index: watch::Sender::new(0),
            doubted: Arc::default(),
        }
    }
}

impl AppliedState {
    pub fn read(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change, by the index that is in the state now.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    /// Until the entry at `index` is in the state.
    pub async fn wait_for(&self, index: u64) {
        let mut changes = self.changes();
        let waited = changes.wait_for(|applied| *applied >= index).await;
        waited.expect("the sender lives in self");
    }

    /// Does the log revoke this key further on than this node knows it to be agreed on? It may have known that before it was
    /// stopped: it is noted a moment later. `false` as soon as that place is in the state, or another entry is there.
    pub fn may_be_revoked(&self, key_id: &str) -> bool {
        let doubted = self.doubted.read().unwrap_or_else(PoisonError::into_inner);
        let place = doubted.get(key_id);
        place.is_some_and(|place| *place > *self.index.borrow())
    }

    /// What the log revokes that Raft starts from, wherever it does.
    pub(super) fn doubt(&self, revoked: BTreeMap<String, u64>) {
        *self.doubted.write().unwrap_or_else(PoisonError::into_inner) = revoked;
    }

    fn change<T>(&self, index: u64, change: impl FnOnce(&mut ClusterState) -> T) -> T {
        let result = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut state)
        };
        self.index.send_replace(index);
        result
    }
}

/// A snapshot as it is kept and sent: the frame of a [`ClusterImage`].
#[derive(Clone)]
pub struct KeptSnapshot {
    pub meta: SnapshotMeta,
    pub data: Arc<Vec<u8>>,
}

impl KeptSnapshot {
    pub fn read(meta: &[u8], data: Vec<u8>) -> Result<KeptSnapshot, OpenError> {
        let meta = log_store::read(Kind::SnapshotMeta, meta)?;
        // It is read when the node starts, so that a node whose snapshot is damaged says so at once.
        log_store::read::<ClusterImage>(Kind::ClusterImage, &data)?;
        Ok(KeptSnapshot {
            meta: convert::snapshot_meta_back(&meta),
            data: Arc::new(data),
        })
    }

    pub fn state(&self) -> ClusterState {
        let image = wire::read(Kind::ClusterImage, &self.data).expect("it was read before");
        ClusterState::of_image(image)
    }

    fn change(&self) -> Change {
        Change::Snapshot {
            meta: wire::frame(Kind::SnapshotMeta, 0, &convert::snapshot_meta(&self.meta)),
            data: (*self.data).clone(),
        }
    }

    fn open(&self) -> Snapshot {
        Snapshot {
            meta: self.meta.clone(),
            snapshot: Box::new(Cursor::new((*self.data).clone())),
        }
    }
}

pub struct StateMachine {
    applied: AppliedState,
    last: Option<LogId>,
    membership: StoredMembership,
    /// Shared with those who build snapshots.
    kept: watch::Sender<Option<KeptSnapshot>>,
    journal: Journal,
}

impl StateMachine {
    /// As of the snapshot; Raft applies what follows it.
    pub fn start(applied: AppliedState, kept: Option<KeptSnapshot>, journal: Journal) -> StateMachine {
        let mut machine = StateMachine {
            applied,
            last: None,
            membership: StoredMembership::default(),
            kept: watch::Sender::new(kept.clone()),
            journal,
        };
        match kept {
            Some(snapshot) => machine.become_snapshot(&snapshot.meta, snapshot.state()),
            None => machine
                .applied
                .change(0, |state| *state = ClusterState::default()),
        }
        machine
    }

    /// The latest snapshot that is on the disk.
    pub fn kept(&self) -> watch::Receiver<Option<KeptSnapshot>> {
        self.kept.subscribe()
    }

    fn become_snapshot(&mut self, meta: &SnapshotMeta, snapshot: ClusterState) {
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.applied.change(index, |state| *state = snapshot);
    }

    fn apply_one(&mut self, entry: Entry) -> Outcome {
        let index = entry.log_id.index;
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => self.applied.change(index, |_| Ok(Applied::Done)),
            EntryPayload::Normal(proposal) => {
                self.applied.change(index, |state| state.apply(index, &proposal))
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                self.applied.change(index, |_| Ok(Applied::Done))
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_one(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            last: self.last,
            membership: self.membership.clone(),
            image: self.applied.read().image(),
            kept: self.kept.clone(),
            journal: self.journal.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let failed = |error: AnyError| StorageError::IO {
            source: StorageIOError::read_snapshot(Some(meta.signature()), error),
        };
        let data = snapshot.into_inner();
        let image: ClusterImage =
            wire::read(Kind::ClusterImage, &data).map_err(|error| failed(AnyError::new(&error)))?;
        let kept = KeptSnapshot {
            meta: meta.clone(),
            data: Arc::new(data),
        };
        self.journal
            .write(vec![kept.change()])
            .await
            .map_err(|error| failed(AnyError::new(&error)))?;
        self.become_snapshot(meta, ClusterState::of_image(image));
        self.kept.send_replace(Some(kept));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        Ok(self.kept.borrow().as_ref().map(KeptSnapshot::open))
    }
}

/// The state as it was when this was made.
pub struct SnapshotBuilder {
    last: Option<LogId>,
    membership: StoredMembership,
    image: ClusterImage,
    kept: watch::Sender<Option<KeptSnapshot>>,
    journal: Journal,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let name = self.last.map_or("empty".to_owned(), |id| {
            format!("{}-{}", id.leader_id.term, id.index)
        });
        let kept = KeptSnapshot {
            meta: SnapshotMeta {
                last_log_id: self.last,
                last_membership: self.membership.clone(),
                snapshot_id: name,
            },
            data: Arc::new(wire::frame(Kind::ClusterImage, 0, &self.image)),
        };
        let written = self.journal.write(vec![kept.change()]).await;
        written.map_err(|error| StorageError::IO {
            source: StorageIOError::write_snapshot(Some(kept.meta.signature()), AnyError::new(&error)),
        })?;
        let snapshot = kept.open();
        self.kept.send_replace(Some(kept));
        Ok(snapshot)
    }
}
