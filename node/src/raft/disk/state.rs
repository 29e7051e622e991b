use super::change::Change;
use super::record::{self, Key, Kind};
use super::witness::StoreId;
use std::ops::Range;

/// Of the manifest's layout.
const FORMAT: u32 = 1;
/// With its checksum and redb's own bytes it fills a page of 256 KiB.
pub const CHUNK_BYTES: usize = (256 << 10) - 512;
/// The records that exist once, besides the manifest.
pub const SINGLES: [Kind; 5] = [
    Kind::Vote,
    Kind::Committed,
    Kind::Purged,
    Kind::Identity,
    Kind::Snapshot,
];
const MANIFEST_HEAD_BYTES: usize = 44;
const SNAPSHOT_HEAD_BYTES: usize = 12;

/// Up to which index the log was purged, and what was kept in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purged<'a> {
    pub index: u64,
    pub marker: &'a [u8],
}

/// What is known of the store without reading entries or snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub store: StoreId,
    /// The number of the last step.
    pub step: u64,
    /// The indices of the entries.
    pub log: Range<u64>,
    /// The payloads of `SINGLES`.
    singles: [Option<Vec<u8>>; SINGLES.len()],
}

/// What a step does to the records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    Put(Key, Vec<u8>),
    Remove(Kind, Range<u64>),
}

impl State {
    /// Of a store with nothing in it.
    pub fn new(store: StoreId) -> State {
        State {
            store,
            step: 1,
            log: 0..0,
            singles: Default::default(),
        }
    }

    /// From the manifest's payload and what was found of `SINGLES`; an error says what does not fit.
    pub fn decode(manifest: &[u8], singles: [Option<Vec<u8>>; SINGLES.len()]) -> Result<State, String> {
        let head = manifest
            .first_chunk::<MANIFEST_HEAD_BYTES>()
            .ok_or("the manifest is too short")?;
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        if head[..4] != FORMAT.to_le_bytes() {
            return Err("the manifest is of another format".to_owned());
        }
        let state = State {
            store: head[4..20].try_into().expect("16 bytes"),
            step: number(20),
            log: number(28)..number(36),
            singles,
        };
        if state.encode() != manifest {
            return Err("a record that exists once is not the one that the manifest names".to_owned());
        }
        let purged = match state.single(Kind::Purged) {
            Some(payload) => payload.first_chunk().map(|index| u64::from_le_bytes(*index) + 1),
            None => Some(0),
        };
        let snapshot = state.single(Kind::Snapshot);
        let readable = snapshot.is_none_or(|payload| payload.len() >= SNAPSHOT_HEAD_BYTES);
        if purged != Some(state.log.start) || state.log.start > state.log.end || !readable {
            return Err("the bounds of the log contradict each other".to_owned());
        }
        Ok(state)
    }

    /// The manifest's payload.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = FORMAT.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.store);
        for number in [self.step, self.log.start, self.log.end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (kind, payload) in SINGLES.into_iter().zip(&self.singles) {
            let checksum = payload
                .as_ref()
                .map(|payload| record::checksum(Key::single(kind), payload));
            bytes.push(u8::from(checksum.is_some()));
            bytes.extend_from_slice(&checksum.unwrap_or(0).to_le_bytes());
        }
        bytes
    }

    pub fn manifest(&self) -> Write {
        put(Key::single(Kind::Manifest), &self.encode())
    }

    pub fn single(&self, kind: Kind) -> Option<&[u8]> {
        self.singles[place(kind)].as_deref()
    }

    pub fn purged(&self) -> Option<Purged<'_>> {
        let (index, marker) = self.single(Kind::Purged)?.split_first_chunk()?;
        Some(Purged {
            index: u64::from_le_bytes(*index),
            marker,
        })
    }

    pub fn snapshot(&self) -> Option<SnapshotHead<'_>> {
        self.single(Kind::Snapshot).and_then(SnapshotHead::decode)
    }

    /// How many chunks the snapshot has.
    pub fn chunks(&self) -> u64 {
        self.snapshot().map_or(0, |head| chunks(head.data_bytes))
    }

    /// The state after a step, and what is to be written for it.
    ///
    /// # Panics
    /// When a change breaks what its documentation demands: the log would have a hole, which no caller may make.
    pub fn plan(&self, changes: &[Change]) -> (State, Vec<Write>) {
        let mut next = self.clone();
        let mut writes = Vec::new();
        next.step += 1;
        for change in changes {
            match change {
                Change::Vote(payload) => next.set(Kind::Vote, payload.clone(), &mut writes),
                Change::Committed(payload) => next.set(Kind::Committed, payload.clone(), &mut writes),
                Change::Identity(payload) => next.set(Kind::Identity, payload.clone(), &mut writes),
                Change::Append { first, entries } => next.append(*first, entries, &mut writes),
                Change::TruncateFrom(index) => next.truncate(*index, &mut writes),
                Change::PurgeThrough { index, marker } => next.purge(*index, marker, &mut writes),
                Change::Snapshot { meta, data } => next.replace_snapshot(meta, data, &mut writes),
            }
        }
        writes.push(next.manifest());
        (next, writes)
    }

    fn set(&mut self, kind: Kind, payload: Vec<u8>, writes: &mut Vec<Write>) {
        writes.push(put(Key::single(kind), &payload));
        self.singles[place(kind)] = Some(payload);
    }

    fn append(&mut self, first: u64, entries: &[Vec<u8>], writes: &mut Vec<Write>) {
        assert_eq!(
            first, self.log.end,
            "appended entries continue the log {:?}",
            self.log
        );
        for entry in entries {
            writes.push(put(Key::new(Kind::Entry, self.log.end), entry));
            self.log.end += 1;
        }
    }

    fn truncate(&mut self, index: u64, writes: &mut Vec<Write>) {
        let allowed = self.log.start..=self.log.end;
        assert!(
            allowed.contains(&index),
            "truncated from {index}, the log is {:?}",
            self.log
        );
        remove(Kind::Entry, index..self.log.end, writes);
        self.log.end = index;
    }

    fn purge(&mut self, index: u64, marker: &[u8], writes: &mut Vec<Write>) {
        let first = index + 1;
        assert!(
            first >= self.log.start,
            "purged through {index}, the log begins at {}",
            self.log.start
        );
        assert!(
            first <= self.log.end || self.snapshot().is_some(),
            "purged through {index} without a snapshot, the log is {:?}",
            self.log
        );
        remove(Kind::Entry, self.log.start..first.min(self.log.end), writes);
        self.log = first..first.max(self.log.end);
        let payload = [&index.to_le_bytes(), marker].concat();
        self.set(Kind::Purged, payload, writes);
    }

    fn replace_snapshot(&mut self, meta: &[u8], data: &[u8], writes: &mut Vec<Write>) {
        let before = self.chunks();
        for (index, chunk) in (0..).zip(data.chunks(CHUNK_BYTES)) {
            writes.push(put(Key::new(Kind::Chunk, index), chunk));
        }
        remove(Kind::Chunk, chunks(data.len() as u64)..before, writes);
        let head = SnapshotHead {
            data_bytes: data.len() as u64,
            data_checksum: crc32fast::hash(data),
            meta,
        };
        self.set(Kind::Snapshot, head.encode(), writes);
    }
}

/// What is known of a snapshot without reading its data.
#[derive(Clone, Copy)]
pub struct SnapshotHead<'a> {
    pub data_bytes: u64,
    pub data_checksum: u32,
    pub meta: &'a [u8],
}

impl SnapshotHead<'_> {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.data_bytes.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.data_checksum.to_le_bytes());
        bytes.extend_from_slice(self.meta);
        bytes
    }

    fn decode(payload: &[u8]) -> Option<SnapshotHead<'_>> {
        let (data_bytes, rest) = payload.split_first_chunk()?;
        let (data_checksum, meta) = rest.split_first_chunk()?;
        Some(SnapshotHead {
            data_bytes: u64::from_le_bytes(*data_bytes),
            data_checksum: u32::from_le_bytes(*data_checksum),
            meta,
        })
    }
}

fn chunks(data_bytes: u64) -> u64 {
    data_bytes.div_ceil(CHUNK_BYTES as u64)
}

fn put(key: Key, payload: &[u8]) -> Write {
    Write::Put(key, record::seal(key, payload))
}

fn remove(kind: Kind, indices: Range<u64>, writes: &mut Vec<Write>) {
    if !indices.is_empty() {
        writes.push(Write::Remove(kind, indices));
    }
}

/// # Panics
/// For a kind that does not exist once.
pub fn place(kind: Kind) -> usize {
    SINGLES
        .into_iter()
        .position(|single| single == kind)
        .expect("a kind that exists once")
}
