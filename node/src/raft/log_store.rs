//! Raft's log: in memory for reading, in the journal for good.
//!
//! The log is short, because snapshots cut it, so all of it is held; what is read is what was verified when the node
//! started or was given by Raft since.

use super::convert;
use super::disk::{Change, Disk, DiskError};
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
use tokio::sync::watch;

/// Cheap to copy; all copies read the same log. Raft alone writes.
#[derive(Clone)]
pub struct LogStore {
    known: Arc<RwLock<Known>>,
    journal: Journal,
    /// What stands for the entries that are cut off.
    kept: watch::Receiver<Option<KeptSnapshot>>,
}

#[derive(Default)]
struct Known {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
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

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
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

    pub fn store(self, journal: Journal, kept: watch::Receiver<Option<KeptSnapshot>>) -> LogStore {
        LogStore {
            known: Arc::new(RwLock::new(self.0)),
            journal,
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
    #[error("the Raft log holds another entry at index {index}: repair this node with `cluster node repair`")]
    Misplaced { index: u64 },
    #[error("the thread that writes the log could not be started: {0}")]
    Thread(#[from] io::Error),
    #[error("Raft refuses what the disk holds: {0}")]
    Refused(String),
}

impl OpenError {
    /// Nothing gets better by itself.
    pub fn is_damage(&self) -> bool {
        match self {
            OpenError::Disk(DiskError::Corrupt { .. })
            | OpenError::Unreadable { .. }
            | OpenError::Misplaced { .. }
            | OpenError::Refused(_) => true,
            OpenError::Disk(_) | OpenError::Thread(_) => false,
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

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
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
