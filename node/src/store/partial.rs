//! A file that comes in parts, from other nodes: chunks are of use as they land.
//!
//! ```text
//! partial/<sha256>/manifest   what its chunks must be
//! partial/<sha256>/data       the file at full length; where nothing has landed, a hole
//! partial/<sha256>/landed     which chunks are there; locked by the process that fetches
//! partial/<sha256>/kept       that process uses the parts for as long as it lives: nobody need wait for it
//! ```
//! Where one process of a host keeps parts and another wants parts as well, as the nodes of two stages do that share a store,
//! that one has a folder of its own, `partial/<sha256>.1` and so on, and gets from the first what it has.
//!
//! A chunk is noted in `landed` once its bytes are synced, some at a time, so a crash loses the last few and claims none that
//! is not there. What was noted is not read again when a partial is opened: it was verified when it came and synced before it
//! was noted, which is all that is known of a blob too; whoever computes with it verifies it again. Before a whole file becomes
//! a blob every byte is.
//!
//! An entry of `landed` is the chunk's index and a CRC-32 over the manifest's digest and that index. The first one that does
//! not fit ends the list: it was being written in a crash, or is of another manifest.

use super::Stored;
use super::chunk_set::ChunkSet;
use super::chunks::{self, Manifest};
use super::error::StoreError;
use crate::hex;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// 64 MiB: so much has to be fetched again after a crash.
const SYNC_EVERY_CHUNKS: usize = 16;
const ENTRY_BYTES: usize = 8;
/// Far more than nodes of one host share a store.
const FOLDERS_MAX: u32 = 64;
const KEPT: &str = "kept";

/// Clones are the same file. While one is held, no other process fetches it, and it is not collected.
#[derive(Clone)]
pub struct Partial(Arc<Parts>);

struct Parts {
    folder: PathBuf,
    digest: [u8; 32],
    manifest: Manifest,
    data: File,
    here: Mutex<ChunkSet>,
    record: Mutex<Record>,
    landed: watch::Sender<()>,
    #[cfg(test)]
    writes_left: Mutex<Option<u32>>,
}

/// Which chunks are noted, and those that are still to be.
struct Record {
    file: File,
    bytes: u64,
    unsynced: Vec<u32>,
    key: [u8; 32],
}

impl Partial {
    /// To be called under the store's lock. `None`: another process fetches it, and will be done with it some time.
    pub(super) fn open(
        store: &Path,
        digest: [u8; 32],
        manifest: Manifest,
    ) -> Result<Option<Partial>, StoreError> {
        for folder in folders(store, &digest) {
            let landed = match take_landed(&folder).map_err(StoreError::io(&folder))? {
                Claim::Free(landed) => landed,
                Claim::Kept => continue,
                Claim::Fetched => return Ok(None),
            };
            let opened = Parts::open(&folder, landed, digest, manifest);
            let parts = opened.map_err(StoreError::io(&folder))?;
            return Ok(Some(Partial(Arc::new(parts))));
        }
        Ok(None)
    }

    /// Makes one of a blob of which only these chunks are sound. To be called under the store's lock. A crash leaves a blob, or
    /// a partial of which less is noted than is there.
    pub(super) fn of_blob(
        store: &Path,
        blob: &Stored,
        manifest: &Manifest,
        sound: &ChunkSet,
    ) -> Result<(), StoreError> {
        for folder in folders(store, &blob.digest) {
            let landed = match take_landed(&folder).map_err(StoreError::io(&folder))? {
                Claim::Free(landed) => landed,
                Claim::Kept => continue,
                // Chunks that it has are not had twice.
                Claim::Fetched => break,
            };
            return Partial::demote(&folder, landed, blob, manifest, sound).map_err(StoreError::io(&folder));
        }
        fs::remove_file(&blob.path).map_err(StoreError::io(&blob.path))
    }

    fn demote(
        folder: &Path,
        landed: File,
        blob: &Stored,
        manifest: &Manifest,
        sound: &ChunkSet,
    ) -> io::Result<()> {
        landed.set_len(0)?;
        landed.sync_all()?;
        chunks::keep(&folder.join("manifest"), manifest)?;
        fs::rename(&blob.path, folder.join("data"))?;
        File::open(folder)?.sync_all()?;
        landed.write_all_at(&entries(&manifest.digest(), sound.iter()), 0)?;
        landed.sync_all()
    }

    /// SHA-256 of the whole file.
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The file, of which only parts are there, until it is promoted.
    pub fn path(&self) -> PathBuf {
        self.0.folder.join("data")
    }

    pub fn here(&self) -> ChunkSet {
        lock(&self.0.here).clone()
    }

    pub fn has(&self, index: u32) -> bool {
        lock(&self.0.here).contains(index)
    }

    pub fn is_whole(&self) -> bool {
        lock(&self.0.here).len() == self.0.manifest.chunks()
    }

    /// Takes a chunk in where it is what it must be: `Ok(false)` otherwise. Blocks. After an error, what was there before is
    /// still there.
    pub fn write_chunk(&self, index: u32, bytes: &[u8]) -> Result<bool, StoreError> {
        let parts = &self.0;
        if !parts.manifest.verifies(index, bytes) {
            return Ok(false);
        }
        if self.has(index) {
            return Ok(true);
        }
        let place = parts.manifest.place(index);
        parts
            .write(bytes, place.start)
            .map_err(StoreError::io(self.path()))?;
        lock(&parts.here).insert(index);
        parts.landed.send_replace(());
        let mut record = lock(&parts.record);
        record.unsynced.push(index);
        match record.unsynced.len() < SYNC_EVERY_CHUNKS {
            true => Ok(true),
            false => parts.note(&mut record).map(|()| true),
        }
    }

    /// All that has landed is noted, and survives a crash. Blocks.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.0.note(&mut lock(&self.0.record))
    }

    /// Settles, and from now on no other process waits until this one lets go of it. Blocks.
    pub fn keep(&self) -> Result<(), StoreError> {
        self.settle()?;
        if let Err(error) = File::create(self.0.folder.join(KEPT)) {
            tracing::warn!(%error, "other nodes of this host that share its store may have to wait for this one");
        }
        Ok(())
    }

    /// `None`: it is not here. Blocks.
    pub fn read_chunk(&self, index: u32) -> io::Result<Option<Vec<u8>>> {
        self.read(self.0.manifest.place(index))
    }

    /// These bytes of the file; `None`: some are not here. Blocks.
    pub fn read(&self, range: Range<u64>) -> io::Result<Option<Vec<u8>>> {
        let manifest = &self.0.manifest;
        if range.end > manifest.file_bytes || range.is_empty() {
            return Ok(None);
        }
        let needed = self.chunks_of(std::slice::from_ref(&range));
        if !needed.minus(&self.here()).is_empty() {
            return Ok(None);
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.0.data.read_exact_at(&mut bytes, range.start)?;
        Ok(Some(bytes))
    }

    /// The chunks that hold these bytes.
    pub fn chunks_of(&self, ranges: &[Range<u64>]) -> ChunkSet {
        let manifest = &self.0.manifest;
        ChunkSet::of_ranges(ranges, manifest.chunk_bytes, manifest.chunks())
    }

    /// Says whenever something has landed.
    pub fn landings(&self) -> watch::Receiver<()> {
        self.0.landed.subscribe()
    }

    /// Until all of these are here. May be given up.
    pub async fn wait_for(&self, wanted: &ChunkSet) {
        let mut landings = self.landings();
        while !wanted.minus(&self.here()).is_empty() {
            if landings.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reads these again as far as they are here; what is damaged is not here any more. Gives how many chunks are. Blocks.
    pub fn weed(&self, chunks: &ChunkSet) -> Result<u32, StoreError> {
        let mut damaged = ChunkSet::none(chunks.chunks());
        for index in chunks.iter().filter(|index| self.has(*index)) {
            // What cannot be read is as good as damaged.
            let read = self.read_chunk(index).unwrap_or_default();
            if !read.is_some_and(|bytes| self.manifest().verifies(index, &bytes)) {
                damaged.insert(index);
            }
        }
        if !damaged.is_empty() {
            self.forget(&damaged)?;
        }
        Ok(damaged.len())
    }

    /// These chunks turned out to be damaged.
    pub(super) fn forget(&self, damaged: &ChunkSet) -> Result<(), StoreError> {
        let mut record = lock(&self.0.record);
        let kept = {
            let mut here = lock(&self.0.here);
            *here = here.minus(damaged);
            here.clone()
        };
        record.file.set_len(0).map_err(StoreError::io(&self.0.folder))?;
        record.bytes = 0;
        record.unsynced = kept.iter().collect();
        self.0.note(&mut record)
    }

    /// To be called under the store's lock, once nothing of it is of use.
    pub(super) fn discard(&self) {
        let mut here = lock(&self.0.here);
        *here = ChunkSet::none(here.chunks());
        lock(&self.0.record).unsynced.clear();
        let _ = fs::remove_dir_all(&self.0.folder);
    }

    /// The folder has served: the data is where it belongs, and this still reads it.
    pub(super) fn leave(&self) {
        lock(&self.0.record).unsynced.clear();
        let _ = fs::remove_dir_all(&self.0.folder);
    }

    /// The disk is full after so many more chunks.
    /// As a process has it that is just being started.
    #[cfg(test)]
    pub(super) fn inherited(&self) -> File {
        lock(&self.0.record).file.try_clone().unwrap()
    }

    #[cfg(test)]
    pub fn fill_after(&self, writes: Option<u32>) {
        *lock(&self.0.writes_left) = writes;
    }
}

impl Parts {
    fn open(folder: &Path, mut landed: File, digest: [u8; 32], manifest: Manifest) -> io::Result<Parts> {
        let data = read_and_write(&folder.join("data"))?;
        let place = folder.join("manifest");
        let is_the_same = chunks::recall(&place).is_some_and(|kept| kept == manifest)
            && data.metadata()?.len() == manifest.file_bytes;
        if !is_the_same {
            // In this order: nothing is claimed that belongs to another file.
            landed.set_len(0)?;
            landed.sync_all()?;
            data.set_len(0)?;
            data.set_len(manifest.file_bytes)?;
            data.sync_all()?;
            chunks::keep(&place, &manifest)?;
            File::open(folder)?.sync_all()?;
        }
        let key = manifest.digest();
        let mut entries = Vec::new();
        landed.read_to_end(&mut entries)?;
        let (here, bytes) = noted(&entries, &key, manifest.chunks());
        landed.set_len(bytes)?;
        Ok(Parts {
            folder: folder.to_owned(),
            digest,
            data,
            here: Mutex::new(here),
            record: Mutex::new(Record {
                file: landed,
                bytes,
                unsynced: Vec::new(),
                key,
            }),
            landed: watch::Sender::new(()),
            manifest,
            #[cfg(test)]
            writes_left: Mutex::new(None),
        })
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(left) = lock(&self.writes_left).as_mut() {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        self.data.write_all_at(bytes, at)
    }

    /// Bytes first, then the claim that they are there.
    fn note(&self, record: &mut Record) -> Result<(), StoreError> {
        if record.unsynced.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.data.sync_data() {
            // What the system could not write may be gone from its memory too.
            let mut here = lock(&self.here);
            record.unsynced.drain(..).for_each(|index| here.remove(index));
            return Err(StoreError::io(self.folder.join("data"))(error));
        }
        let entries = entries(&record.key, record.unsynced.iter().copied());
        let written = record.file.write_all_at(&entries, record.bytes);
        written.map_err(StoreError::io(self.folder.join("landed")))?;
        record.bytes += entries.len() as u64;
        record.unsynced.clear();
        Ok(())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let mut record = lock(&self.record);
        // Otherwise the last chunks are fetched again.
        let _ = self.note(&mut record);
        // A process that is just being started has the file too until it runs its own program, and would hold the lock.
        let _ = flock(&record.file, FlockOperation::Unlock);
    }
}

enum Claim {
    /// Locked from now on.
    Free(File),
    /// Another process uses the parts for as long as it lives.
    Kept,
    /// Another process fetches it.
    Fetched,
}

fn take_landed(folder: &Path) -> io::Result<Claim> {
    fs::create_dir_all(folder)?;
    let landed = read_and_write(&folder.join("landed"))?;
    let kept = folder.join(KEPT);
    if flock(&landed, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(match kept.exists() {
            true => Claim::Kept,
            false => Claim::Fetched,
        });
    }
    match fs::remove_file(kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(Claim::Free(landed)),
    }
}

fn folder(store: &Path, digest: &[u8; 32]) -> PathBuf {
    store.join("partial").join(hex::encode(digest))
}

/// One for each process of this host that may keep parts of the same file.
fn folders(store: &Path, digest: &[u8; 32]) -> impl Iterator<Item = PathBuf> {
    let first = folder(store, digest);
    (0..FOLDERS_MAX).map(move |number| match number {
        0 => first.clone(),
        number => first.with_extension(number.to_string()),
    })
}

fn read_and_write(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    options.open(path)
}

/// Does a process hold this partial? Only under the store's lock, since it takes the lock of the partial for a moment.
pub(super) fn is_held(folder: &Path) -> bool {
    File::open(folder.join("landed"))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

/// The chunks that the entries speak of, and how many bytes of them are sound.
fn noted(entries: &[u8], key: &[u8; 32], chunks: u32) -> (ChunkSet, u64) {
    let mut here = ChunkSet::none(chunks);
    let mut sound = 0;
    let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
    for found in entries {
        let index = u32::from_le_bytes([found[0], found[1], found[2], found[3]]);
        if *found != entry(key, index) || index >= chunks {
            break;
        }
        here.insert(index);
        sound += ENTRY_BYTES as u64;
    }
    (here, sound)
}

fn entries(key: &[u8; 32], chunks: impl Iterator<Item = u32>) -> Vec<u8> {
    chunks.flat_map(|index| entry(key, index)).collect()
}

fn entry(key: &[u8; 32], index: u32) -> [u8; ENTRY_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&index.to_le_bytes());
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&index.to_le_bytes());
    entry[4..].copy_from_slice(&hasher.finalize().to_le_bytes());
    entry
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
