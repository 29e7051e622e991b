//! Raft's log: in memory for reading, in the journal for good.
//!
//! The log is short, because snapshots cut it, so all of it is held; what is read is what was verified when the node
//! started or was given by Raft since.

use super::convert;
use super::disk::{Change, Disk, DiskError};
use super::dispute::Disputed;
use super::journal::Journal;
use super::state_machine::KeptSnapshot;
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use proto::NodeId;
use proto::raft as ours;
use proto::wire::{self, Kind, WireError};
use rkyv::api::high::{HighDeserializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;

/// Cheap to copy; all copies read the same log. Raft alone writes.
#[derive(Clone)]
pub struct LogStore {
    known: Arc<RwLock<Known>>,
    journal: Journal,
    disputed: Disputed,
    /// What stands for the entries that are cut off.
    kept: watch::Receiver<Option<KeptSnapshot>>,
}

#[derive(Default)]
pub(super) struct Known {
    pub entries: BTreeMap<u64, Entry>,
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
}

impl LogStore {
    /// What the disk holds. A journal has to write to that same disk from now on.
    pub fn read(disk: &mut Disk) -> Result<LogRead, OpenError> {
        let vote = disk.vote().map(|bytes| read(Kind::RaftVote, bytes)).transpose()?;
        let purged = disk.purged().map(|purged| read(Kind::RaftLogId, purged.marker));
        let committed = disk.committed().map(|bytes| read(Kind::RaftLogId, bytes));
        let (purged, committed) = (purged.transpose()?, committed.transpose()?);
        let mut entries = BTreeMap::new();
        let indices = disk.log();
        for (index, bytes) in indices.clone().zip(disk.entries(indices)?) {
            let entry: ours::Entry = read(Kind::RaftEntry, &bytes)?;
            if entry.id.index != index {
                return Err(OpenError::Misplaced { index });
            }
            entries.insert(index, convert::entry_back(entry));
        }
        Ok(LogRead(Known {
            entries,
            vote: vote.as_ref().map(convert::vote_back),
            purged: purged.as_ref().map(convert::log_id_back),
            committed: committed.as_ref().map(convert::log_id_back),
        }))
    }

    /// What it holds at any time. Keeps nothing open.
    pub fn ground(&self) -> Ground {
        Ground(Arc::clone(&self.known))
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a member of this node stands on, to be held against what others say.
#[derive(Clone)]
pub struct Ground(Arc<RwLock<Known>>);

impl Ground {
    /// What of it stands against what was agreed on here.
    pub fn disputed_by(&self, append: &ours::Append) -> Option<LogId> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.disputed_by(append)
    }
}

/// A log as it was found.
pub struct LogRead(Known);

impl LogRead {
    /// In order.
    pub fn entries_after(&self, index: u64) -> impl Iterator<Item = &Entry> {
        self.0.entries.range(index + 1..).map(|(_, entry)| entry)
    }

    /// `Some`: as far as this disk knows, this node still leads.
    pub fn reign(&self, node: NodeId) -> Option<Reign> {
        let vote = self.0.vote.filter(|vote| vote.committed)?;
        let (last, _) = self.0.entries.last_key_value()?;
        (vote.leader_id.node_id == node.0).then_some(Reign {
            term: vote.leader_id.term,
            last_index: *last,
        })
    }

    /// Whether what is in it goes together, and with a snapshot up to `snapshot`.
    pub fn check(&self, snapshot: Option<LogId>) -> Result<(), OpenError> {
        self.0.check(snapshot)
    }

    pub fn store(
        mut self,
        journal: Journal,
        kept: watch::Receiver<Option<KeptSnapshot>>,
        disputed: Disputed,
    ) -> LogStore {
        let snapshot = kept.borrow().as_ref().and_then(|kept| kept.meta.last_log_id);
        self.0.committed = self.0.committed.max(snapshot);
        LogStore {
            known: Arc::new(RwLock::new(self.0)),
            journal,
            disputed,
            kept,
        }
    }
}

/// A leader's term, and how far its log went when it started again. What it had acknowledged lies within.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reign {
    pub term: u64,
    pub last_index: u64,
}

/// Raft reads at its beginning what is in memory already, and applies it.
pub const BEGIN_MAX: Duration = Duration::from_secs(10);

/// Why Raft cannot start from what the disk holds.
#[derive(thiserror::Error, Debug)]
pub enum OpenError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(
        "the Raft log holds a record that this program cannot read ({error}): it may have been written by a newer one; start \
         that one again"
    )]
    Unreadable {
        kind: Kind,
        #[source]
        error: WireError,
    },
    #[error(
        "the Raft log holds another entry at index {index}: this node must not vote or lead with it. To repair it from the \
         other nodes, start it with --join and a token of theirs (`cluster token create`); if there are none, restore a backup"
    )]
    Misplaced { index: u64 },
    #[error(
        "another log contradicts what this node knows to be agreed on (at index {index}): the data folder of this node or of \
         another voter was set back to an earlier state, as with an old copy or a snapshot of the machine. This node neither \
         votes nor leads any more, and its log is kept as it is. To go on with what the other nodes agree on, start it with \
         --join and a token of theirs (`cluster token create`); to go on with what this one knows, stop them all and see \
         `cluster recover`; or restore a backup"
    )]
    Disputed { index: u64 },
    #[error("the thread that writes the log could not be started: {0}")]
    Thread(#[from] io::Error),
    #[error("Raft refuses what the disk holds: {0}")]
    Refused(String),
    #[error(
        "Raft did not begin within {max} s: look after the disk, then start the node again",
        max = BEGIN_MAX.as_secs()
    )]
    Stuck,
}

impl OpenError {
    /// Nothing gets better by itself.
    pub fn is_damage(&self) -> bool {
        match self {
            OpenError::Disk(DiskError::Corrupt { .. })
            | OpenError::Unreadable { .. }
            | OpenError::Misplaced { .. }
            | OpenError::Disputed { .. }
            | OpenError::Refused(_) => true,
            OpenError::Disk(_) | OpenError::Thread(_) | OpenError::Stuck => false,
        }
    }

    /// And a new member may take its place. A log that another program wrote is to be read by that one.
    pub fn is_repairable(&self) -> bool {
        match self {
            OpenError::Disk(DiskError::Corrupt { .. })
            | OpenError::Misplaced { .. }
            | OpenError::Disputed { .. } => true,
            OpenError::Disk(_)
            | OpenError::Unreadable { .. }
            | OpenError::Refused(_)
            | OpenError::Thread(_)
            | OpenError::Stuck => false,
        }
    }
}

/// A record that passed its checksum and does not read was written by another program.
pub fn read<T>(kind: Kind, bytes: &[u8]) -> Result<T, OpenError>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
{
    wire::read(kind, bytes).map_err(|error| OpenError::Unreadable { kind, error })
}

fn written(error: io::Error, failed: fn(AnyError) -> StorageIOError<u64>) -> StorageError {
    StorageError::IO {
        source: failed(AnyError::new(&error)),
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self
            .known()
            .entries
            .range(range)
            .map(|(_, entry)| entry.clone())
            .collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let known = self.known();
        let last = known.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState {
            last_purged_log_id: known.purged,
            last_log_id: last.or(known.purged),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let bytes = wire::frame(Kind::RaftVote, 0, &convert::vote(vote));
        self.journal
            .write(vec![Change::Vote(bytes)])
            .await
            .map_err(|error| written(error, StorageIOError::write_vote))?;
        self.known_mut().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.known().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.known_mut().committed = committed;
        if let Some(committed) = committed {
            // It only saves work at the next start: what is committed stays so whether or not this is known.
            let bytes = wire::frame(Kind::RaftLogId, 0, &convert::log_id(&committed));
            self.journal.note(Change::Committed(bytes));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.known().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut first = None;
        let mut written = Vec::new();
        {
            let mut known = self.known_mut();
            for entry in entries {
                first.get_or_insert(entry.log_id.index);
                written.push(wire::frame(Kind::RaftEntry, 0, &convert::entry(&entry)));
                known.entries.insert(entry.log_id.index, entry);
            }
        }
        let changes = first.map(|first| Change::Append {
            first,
            entries: written,
        });
        self.journal.append(changes.into_iter().collect(), flushed);
        Ok(())
    }

    /// What was agreed on is cut off by nobody: a leader that lacks it was set back, or the one that counted it was.
    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        if let Some(other) = self.known().disputed_by_cut(from) {
            self.disputed.raise(other);
            let error = io::Error::other(OpenError::Disputed { index: from.index });
            return Err(written(error, StorageIOError::write_logs));
        }
        self.known_mut().entries.split_off(&from.index);
        self.journal
            .write(vec![Change::TruncateFrom(from.index)])
            .await
            .map_err(|error| written(error, StorageIOError::write_logs))
    }

    /// Raft asks for this while the snapshot that it was sent is still on its way to the disk, where the entries stay until
    /// that has arrived.
    async fn purge(&mut self, through: LogId) -> Result<(), StorageError> {
        let arrived = self.kept.wait_for(|kept| {
            let last = kept.as_ref().and_then(|kept| kept.meta.last_log_id);
            last.is_some_and(|last| last.index >= through.index)
        });
        if arrived.await.is_err() {
            let error = io::Error::other("no snapshot has come to stand for these entries");
            return Err(written(error, StorageIOError::write_logs));
        }
        {
            let mut known = self.known_mut();
            known.entries = known.entries.split_off(&(through.index + 1));
            known.purged = Some(through);
        }
        let marker = wire::frame(Kind::RaftLogId, 0, &convert::log_id(&through));
        let purge = Change::PurgeThrough {
            index: through.index,
            marker,
        };
        self.journal
            .write(vec![purge])
            .await
            .map_err(|error| written(error, StorageIOError::write_logs))
    }
}
