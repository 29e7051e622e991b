//! What this node can give of models' files: those of its store, and those that it is fetching itself.

use crate::store::chunk_set::ChunkSet;
use crate::store::chunks::{CHUNK_BYTES, Manifest};
use crate::store::error::StoreError;
use crate::store::partial::Partial;
use crate::store::{Opening, Store, Stored, Weeded};
use proto::NodeId;
use proto::weights::{HeldParts, Holding, ManifestAnswer, ManifestBytes, WholeFile};
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

/// Chunks that are read and sent at once, whoever wants them: the rest of the node has to live too, and each takes memory.
const GIVEN_AT_ONCE: usize = 4;

/// Longer than a chunk takes to come at 100 Mbit/s, where this node passes on what it gets.
const QUIET: Duration = Duration::from_millis(500);

/// Cheap to copy.
#[derive(Clone)]
pub struct Shelf(Arc<Shelves>);

struct Shelves {
    store: Store,
    partials: Mutex<BTreeMap<[u8; 32], OnShelf>>,
    /// Files whose manifests are not kept yet.
    hashing: Mutex<BTreeMap<[u8; 32], Hashing>>,
    giving: Arc<Semaphore>,
    given_bytes: AtomicU64,
    /// When the last chunk was sent.
    given_at: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hashing {
    UnderWay,
    /// The file is damaged, or cannot be read.
    Failed,
}

/// A file that is here in parts.
struct OnShelf {
    partial: Partial,
    /// By the fetch that is under way; none: there is none.
    wanted: watch::Sender<ChunkSet>,
    /// Who has asked since the fetch began.
    askers: BTreeSet<NodeId>,
    newcomers: watch::Sender<()>,
}

/// Where chunks are read from.
#[derive(Clone)]
pub(super) enum Readable {
    Whole(Arc<WholeBlob>),
    Parts(Partial),
}

pub(super) struct WholeBlob {
    file: File,
    bytes: u64,
    chunk_bytes: u32,
}

/// What became of the wish to fetch a file.
pub(super) enum Begun {
    Whole(Stored),
    Fetching(Fetching),
    /// Another process of this host, or another task of this one, is at it.
    Elsewhere,
}

/// While it lives, others are promised the chunks that are wanted.
pub(super) struct Fetching {
    shelf: Shelf,
    pub partial: Partial,
    pub wanted: ChunkSet,
    /// Says when somebody asks for the first time: who asks may be fetching too.
    pub newcomers: watch::Receiver<()>,
    afterwards: Afterwards,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    /// Others may fetch it, or it has become a blob.
    LetGo,
    /// This node uses the parts.
    Keep,
}

impl Shelf {
    pub fn new(store: Store) -> Shelf {
        Shelf(Arc::new(Shelves {
            store,
            partials: Mutex::default(),
            hashing: Mutex::default(),
            giving: Arc::new(Semaphore::new(GIVEN_AT_ONCE)),
            given_bytes: AtomicU64::new(0),
            given_at: Mutex::default(),
        }))
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Of files, to other nodes.
    pub fn given_bytes(&self) -> u64 {
        self.0.given_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn note_given(&self, bytes: usize) {
        self.0.given_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        *self.given_at() = Some(Instant::now());
    }

    fn given_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.given_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once nobody has been given a chunk for a moment, or after `longest`: for what would take from those who wait for weights.
    pub async fn until_quiet(&self, longest: Duration) {
        let quiet = async {
            while self.is_giving() {
                sleep(QUIET / 4).await;
            }
        };
        let _ = timeout(longest, quiet).await;
    }

    fn is_giving(&self) -> bool {
        let has_given = self.given_at().is_some_and(|at| at.elapsed() < QUIET);
        has_given || self.0.giving.available_permits() < GIVEN_AT_ONCE
    }

    pub(super) fn giving(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.giving)
    }

    /// An answer to `from`, who may be fetching the same file.
    pub async fn holds(&self, from: NodeId, digest: [u8; 32]) -> Holding {
        if let Some(parts) = self.parts_for(from, &digest) {
            return parts;
        }
        let shelf = self.clone();
        let found = tokio::task::spawn_blocking(move || shelf.store().find_held(&digest)).await;
        match found {
            Ok(Ok(Some(stored))) => Holding::Whole(Box::new(WholeFile {
                file_bytes: stored.bytes,
            })),
            Ok(Ok(None) | Err(_)) | Err(_) => Holding::Nothing,
        }
    }

    fn parts_for(&self, from: NodeId, digest: &[u8; 32]) -> Option<Holding> {
        let mut partials = self.partials();
        let on_shelf = partials.get_mut(digest)?;
        if on_shelf.askers.insert(from) {
            on_shelf.newcomers.send_replace(());
        }
        let here = on_shelf.partial.here();
        let coming = on_shelf.wanted.borrow().minus(&here);
        Some(Holding::Parts(Box::new(HeldParts {
            file_bytes: on_shelf.partial.manifest().file_bytes,
            here: here.to_bytes(),
            coming: coming.to_bytes(),
        })))
    }

    /// Does not wait where the whole file has to be read first.
    pub async fn manifest(&self, digest: [u8; 32]) -> ManifestAnswer {
        let shelf = self.clone();
        let answered = tokio::task::spawn_blocking(move || shelf.manifest_now(digest)).await;
        answered.unwrap_or(ManifestAnswer::Nothing)
    }

    fn manifest_now(&self, digest: [u8; 32]) -> ManifestAnswer {
        let known = |manifest: &Manifest| {
            ManifestAnswer::Manifest(Box::new(ManifestBytes {
                bytes: manifest.to_bytes(),
            }))
        };
        if let Some(manifest) = self.manifest_of_parts(&digest) {
            return known(&manifest);
        }
        let Ok(Some(stored)) = self.store().find_held(&digest) else {
            return ManifestAnswer::Nothing;
        };
        match self.store().kept_manifest(&stored) {
            Some(manifest) => known(&manifest),
            None => self.make_manifest(stored),
        }
    }

    fn make_manifest(&self, stored: Stored) -> ManifestAnswer {
        match lock(&self.0.hashing).entry(stored.digest) {
            Entry::Occupied(hashing) if *hashing.get() == Hashing::Failed => return ManifestAnswer::Nothing,
            Entry::Occupied(_) => return ManifestAnswer::InTheMaking,
            Entry::Vacant(place) => place.insert(Hashing::UnderWay),
        };
        let shelf = self.clone();
        tokio::task::spawn_blocking(move || match shelf.store().manifest(&stored) {
            Ok(_) => drop(lock(&shelf.0.hashing).remove(&stored.digest)),
            Err(error) => {
                tracing::warn!(%error, "a model of this node cannot be given to others");
                lock(&shelf.0.hashing).insert(stored.digest, Hashing::Failed);
            }
        });
        ManifestAnswer::InTheMaking
    }

    pub(super) fn manifest_of_parts(&self, digest: &[u8; 32]) -> Option<Manifest> {
        let partials = self.partials();
        partials
            .get(digest)
            .map(|on_shelf| on_shelf.partial.manifest().clone())
    }

    /// `None`: nothing of it is here. Blocks.
    pub(super) fn readable(&self, digest: &[u8; 32]) -> Option<Readable> {
        if let Some((partial, _)) = self.parts(digest) {
            return Some(Readable::Parts(partial));
        }
        let stored = self.store().find_held(digest).ok()??;
        let manifest = self.store().kept_manifest(&stored);
        Some(Readable::Whole(Arc::new(WholeBlob {
            file: File::open(&stored.path).ok()?,
            bytes: stored.bytes,
            chunk_bytes: manifest.map_or(CHUNK_BYTES, |manifest| manifest.chunk_bytes),
        })))
    }

    /// What is here in parts, and what the fetch that is under way wants of it.
    pub(super) fn parts(&self, digest: &[u8; 32]) -> Option<(Partial, watch::Receiver<ChunkSet>)> {
        let partials = self.partials();
        let on_shelf = partials.get(digest)?;
        Some((on_shelf.partial.clone(), on_shelf.wanted.subscribe()))
    }

    /// Blocks.
    pub(super) fn begin(
        &self,
        digest: &[u8; 32],
        manifest: &Manifest,
        wanted: ChunkSet,
    ) -> Result<Begun, StoreError> {
        if let Some(on_shelf) = self.partials().get_mut(digest) {
            let is_free = on_shelf.wanted.borrow().is_empty() && on_shelf.partial.manifest() == manifest;
            return Ok(match is_free {
                true => Begun::Fetching(self.fetching(on_shelf, wanted, Afterwards::Keep)),
                false => Begun::Elsewhere,
            });
        }
        let partial = match self.store().open_partial(digest, manifest)? {
            Opening::Whole(stored) => return Ok(Begun::Whole(stored)),
            Opening::Elsewhere => return Ok(Begun::Elsewhere),
            Opening::Parts(partial) => partial,
        };
        let mut partials = self.partials();
        // Nobody else has put one there meanwhile: this one holds the lock.
        let on_shelf = partials.entry(*digest).or_insert_with(|| OnShelf {
            wanted: watch::Sender::new(ChunkSet::none(manifest.chunks())),
            partial,
            askers: BTreeSet::new(),
            newcomers: watch::Sender::new(()),
        });
        Ok(Begun::Fetching(self.fetching(
            on_shelf,
            wanted,
            Afterwards::LetGo,
        )))
    }

    fn fetching(&self, on_shelf: &mut OnShelf, wanted: ChunkSet, afterwards: Afterwards) -> Fetching {
        on_shelf.wanted.send_replace(wanted.clone());
        on_shelf.askers.clear();
        Fetching {
            shelf: self.clone(),
            partial: on_shelf.partial.clone(),
            wanted,
            newcomers: on_shelf.newcomers.subscribe(),
            afterwards,
        }
    }

    /// Reads all again that is here of a file. What is damaged is not here any more, and nobody is promised it. Blocks.
    pub fn weed(&self, digest: &[u8; 32]) -> Result<Weeded, StoreError> {
        match self.parts(digest) {
            Some((partial, _)) => Ok(match partial.weed(&partial.here())? {
                0 => Weeded::Nothing,
                chunks => Weeded::Chunks(chunks),
            }),
            None => self.store().weed(digest),
        }
    }

    fn partials(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], OnShelf>> {
        lock(&self.0.partials)
    }
}

impl Fetching {
    /// The parts are in use for as long as this node lives, and others may have them.
    pub fn keep(mut self) -> Partial {
        self.afterwards = Afterwards::Keep;
        self.partial.clone()
    }

    /// It has become a blob, or is of no use.
    pub fn let_go(mut self) {
        self.afterwards = Afterwards::LetGo;
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut partials = self.shelf.partials();
        let digest = self.partial.digest();
        if let Some(on_shelf) = partials.get(&digest) {
            on_shelf.wanted.send_replace(ChunkSet::none(self.wanted.chunks()));
        }
        if self.afterwards == Afterwards::LetGo {
            partials.remove(&digest);
        }
    }
}

impl Readable {
    /// `None`: it is not here, or there is no such chunk. Blocks.
    pub fn read_chunk(&self, index: u32) -> io::Result<Option<Vec<u8>>> {
        match self {
            Readable::Parts(partial) => partial.read_chunk(index),
            Readable::Whole(blob) => blob.read_chunk(index),
        }
    }
}

impl WholeBlob {
    fn read_chunk(&self, index: u32) -> io::Result<Option<Vec<u8>>> {
        let start = u64::from(index) * u64::from(self.chunk_bytes);
        let left = self.bytes.saturating_sub(start);
        if left == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; left.min(self.chunk_bytes.into()) as usize];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(Some(bytes))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
