use super::change::Change;
use super::error::DiskError;
use super::fault::Fault;
use super::record::Kind;
use super::records::Records;
use super::state::{Purged, State};
use super::watched::Watched;
use super::witness::{StoreId, Witness};
use redb::StorageBackend;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// Of redb's pages. The log is short and read once; the rest comes from the system's page cache.
pub const CACHE_BYTES: usize = 16 << 20;

/// The durable store of one node's Raft. One owner; calls block on the disk.
///
/// What it shows (`vote`, `log`, …) is always the last acknowledged step.
pub struct Disk {
    files: Files,
    /// `None`: closed for want of space, and reopened by whoever comes next.
    records: Option<Records>,
    state: State,
    /// The step that found no space, while it is not known whether it was taken.
    doubtful: Option<Vec<Change>>,
    /// The failure after which nothing is trusted.
    poison: Option<String>,
    /// Held as long as the store is open.
    _lock: Option<File>,
}

/// A snapshot of the state machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub meta: Vec<u8>,
    pub data: Vec<u8>,
}

/// Where the store lies.
pub struct Files {
    /// For messages.
    pub place: String,
    pub log: Arc<dyn StorageBackend>,
    pub witness: Witness,
    pub cache_bytes: usize,
}

impl Files {
    pub fn new(place: String, log: impl StorageBackend, witness: impl StorageBackend) -> Files {
        Files {
            place,
            log: Arc::new(log),
            witness: Witness::new(Arc::new(witness)),
            cache_bytes: CACHE_BYTES,
        }
    }

    /// An empty store in two empty files. A crash in between leaves files that no `open` takes.
    pub fn create(&self, store: StoreId) -> Result<(), DiskError> {
        let state = State::new(store);
        let log = Watched::new(Arc::clone(&self.log));
        Records::create(log, self.cache_bytes, &state)
            .and_then(|()| self.witness.create(store))
            .map_err(|fault| fault.at(&self.place))
    }

    /// Verifies everything and brings the witness up to what was found.
    fn open(&self) -> Result<(Records, State), Fault> {
        // First, as redb repairs what it opens.
        let testimony = self.witness.read()?;
        if self.log.len().map_err(Fault::Io)? == 0 {
            return Err(Fault::corrupt("the log is empty, and it never was"));
        }
        let log = Watched::new(Arc::clone(&self.log));
        let (records, state) = Records::open(log, self.cache_bytes)?;
        let vouched = testimony.allows(state.store, state.step).and_then(|()| {
            if testimony.vouches_for(state.step) {
                return Ok(());
            }
            self.witness.write(state.store, state.step)
        });
        match vouched {
            Ok(()) => Ok((records, state)),
            Err(fault) => {
                records.abandon();
                Err(fault)
            }
        }
    }
}

impl Disk {
    /// Opens the store in two files that `create_on` or a former `open_on` left.
    pub fn open_on(log: impl StorageBackend, witness: impl StorageBackend) -> Result<Disk, DiskError> {
        Disk::open_files(Files::new("the Raft log".to_owned(), log, witness), None)
    }

    /// Makes an empty store in two empty files.
    pub fn create_on(log: impl StorageBackend, witness: impl StorageBackend) -> Result<(), DiskError> {
        let files = Files::new("the Raft log".to_owned(), log, witness);
        files.create(crate::random::bytes())
    }

    pub(super) fn open_files(files: Files, lock: Option<File>) -> Result<Disk, DiskError> {
        let (records, state) = files.open().map_err(|fault| fault.at(&files.place))?;
        Ok(Disk {
            files,
            records: Some(records),
            state,
            doubtful: None,
            poison: None,
            _lock: lock,
        })
    }

    /// Takes one step: all of the changes, in order, or none. Durable when it returns; without changes nothing is done.
    ///
    /// `Full`: not taken; the store stays open and may be tried again, now or later. When not even the store could be
    /// read back for want of space, the step may yet turn out to be complete: the same changes again then succeed at
    /// once, and others are answered with `Landed`.
    ///
    /// # Panics
    /// When a change breaks what its documentation demands.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), DiskError> {
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(doubtful) = self.revive()? {
            return if doubtful == changes {
                Ok(())
            } else {
                Err(DiskError::Landed {
                    place: self.files.place.clone(),
                })
            };
        }
        let (next, writes) = self.state.plan(changes);
        let written = self
            .open_records()
            .apply(&writes)
            .and_then(|()| self.files.witness.write(next.store, next.step));
        match written {
            Ok(()) => {
                self.state = next;
                Ok(())
            }
            Err(fault @ Fault::Full(_)) => {
                self.abandon();
                self.doubtful = Some(changes.to_vec());
                // Says so if it landed after all.
                match self.revive() {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err(fault.at(&self.files.place)),
                    Err(error) => Err(error),
                }
            }
            Err(fault) => Err(self.poisoned_by(fault)),
        }
    }

    pub fn vote(&self) -> Option<&[u8]> {
        self.state.single(Kind::Vote)
    }

    pub fn committed(&self) -> Option<&[u8]> {
        self.state.single(Kind::Committed)
    }

    pub fn identity(&self) -> Option<&[u8]> {
        self.state.single(Kind::Identity)
    }

    pub fn purged(&self) -> Option<Purged<'_>> {
        self.state.purged()
    }

    /// The indices of the entries that are kept: contiguous, from the one after the last purged.
    pub fn log(&self) -> Range<u64> {
        self.state.log.clone()
    }

    pub fn first_index(&self) -> Option<u64> {
        (!self.state.log.is_empty()).then_some(self.state.log.start)
    }

    pub fn last_index(&self) -> Option<u64> {
        (!self.state.log.is_empty()).then(|| self.state.log.end - 1)
    }

    /// Exactly these entries, or an error.
    pub fn entries(&mut self, indices: Range<u64>) -> Result<Vec<Vec<u8>>, DiskError> {
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        self.revive_for_reading()?;
        if indices.start < self.state.log.start || indices.end > self.state.log.end {
            return Err(DiskError::Outside {
                asked: indices,
                held: self.state.log.clone(),
            });
        }
        let read = self.open_records().read(Kind::Entry, indices);
        read.map_err(|fault| self.poisoned_by(fault))
    }

    /// What the snapshot is of, without its data.
    pub fn snapshot_meta(&self) -> Option<&[u8]> {
        self.state.snapshot().map(|head| head.meta)
    }

    pub fn snapshot(&mut self) -> Result<Option<Snapshot>, DiskError> {
        self.revive_for_reading()?;
        let Some(head) = self.state.snapshot() else {
            return Ok(None);
        };
        let (data_bytes, checksum, meta) = (head.data_bytes, head.data_checksum, head.meta.to_vec());
        let read = self.open_records().read(Kind::Chunk, 0..self.state.chunks());
        let data = read.map_err(|fault| self.poisoned_by(fault))?.concat();
        if data.len() as u64 != data_bytes || crc32fast::hash(&data) != checksum {
            return Err(self.poisoned_by(Fault::corrupt("the pieces of the snapshot do not fit")));
        }
        Ok(Some(Snapshot { meta, data }))
    }

    /// Reading does not ask what a doubtful step was.
    fn revive_for_reading(&mut self) -> Result<(), DiskError> {
        let Some(landed) = self.revive()? else {
            return Ok(());
        };
        // The next commit must still be told.
        self.doubtful = Some(landed);
        Ok(())
    }

    /// Reopens a store that was closed for want of space. `Some`: the doubtful step was taken.
    fn revive(&mut self) -> Result<Option<Vec<Change>>, DiskError> {
        if let Some(cause) = &self.poison {
            return Err(DiskError::Poisoned {
                place: self.files.place.clone(),
                cause: cause.clone(),
            });
        }
        if self.records.is_some() {
            return Ok(self.doubtful.take());
        }
        let (records, state) = match self.files.open() {
            Ok(opened) => opened,
            Err(fault @ Fault::Full(_)) => return Err(fault.at(&self.files.place)),
            Err(fault) => return Err(self.poisoned_by(fault)),
        };
        let landed = state.step != self.state.step;
        self.records = Some(records);
        self.state = state;
        let doubtful = self.doubtful.take();
        Ok(doubtful.filter(|_| landed))
    }

    /// # Panics
    /// When the store is closed: `revive` comes first.
    fn open_records(&self) -> &Records {
        self.records.as_ref().expect("the store has been revived")
    }

    fn abandon(&mut self) {
        if let Some(records) = self.records.take() {
            records.abandon();
        }
    }

    fn poisoned_by(&mut self, fault: Fault) -> DiskError {
        self.abandon();
        let error = fault.at(&self.files.place);
        self.poison = Some(error.to_string());
        error
    }
}
