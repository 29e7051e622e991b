//! What the disk has damaged is taken out of the store, so that it is fetched again.

use super::chunk_set::ChunkSet;
use super::chunks::{self, CHUNK_BYTES, Manifest};
use super::error::StoreError;
use super::partial::Partial;
use super::{Store, refs};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What was damaged of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Weeded {
    Nothing,
    /// So many chunks of the store's file: they are not here any more.
    Chunks(u32),
    /// A user's own file, which is left as it is. It is not taken for the model any more.
    OwnFile(PathBuf),
}

impl Weeded {
    /// Into the log.
    pub fn tell(&self, model: &str) {
        match self {
            Weeded::Nothing => {}
            Weeded::Chunks(chunks) => tracing::warn!(
                model,
                chunks,
                "its file is damaged on this node's disk: what is damaged is fetched again"
            ),
            Weeded::OwnFile(path) => {
                let path = path.display();
                tracing::warn!(model, %path, "its file is damaged or was changed on this node's disk: the model is fetched");
            }
        }
    }
}

impl Store {
    /// Reads all of a model that is here. A blob that is damaged becomes a partial of its sound chunks. Blocks.
    pub fn weed(&self, digest: &[u8; 32]) -> Result<Weeded, StoreError> {
        let Some(stored) = self.find_held(digest)? else {
            return Ok(Weeded::Nothing);
        };
        let kept = self.kept_manifest(&stored);
        let chunk_bytes = kept.as_ref().map_or(CHUNK_BYTES, |kept| kept.chunk_bytes);
        let before = stamp(&stored.path);
        let (found, read) =
            chunks::of_file(&stored.path, chunk_bytes).map_err(StoreError::io(&stored.path))?;
        if found == *digest {
            return Ok(Weeded::Nothing);
        }
        let _lock = self.lock()?;
        if stamp(&stored.path) != before {
            // Another process of this host has found it first.
            return Ok(Weeded::Nothing);
        }
        if stored.path != self.blob(digest) {
            refs::forget(&self.folder, &stored.path.to_string_lossy())?;
            return Ok(Weeded::OwnFile(stored.path));
        }
        let Some(manifest) = kept else {
            // Which chunks are sound cannot be told.
            fs::remove_file(&stored.path).map_err(StoreError::io(&stored.path))?;
            return Ok(Weeded::Chunks(read.chunks()));
        };
        let sound = alike(&manifest, &read);
        Partial::of_blob(&self.folder, &stored, &manifest, &sound)?;
        Ok(Weeded::Chunks(manifest.chunks() - sound.len()))
    }
}

/// Which file it is, and when it was touched last.
fn stamp(path: &Path) -> Option<(u64, Option<u128>)> {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), refs::changed_nanos(&data)))
}

/// The chunks of which two manifests say the same.
fn alike(one: &Manifest, other: &Manifest) -> ChunkSet {
    let mut alike = ChunkSet::none(one.chunks());
    let pairs = one.digests.iter().zip(&other.digests);
    (0..)
        .zip(pairs)
        .filter(|(_, (one, other))| one == other)
        .for_each(|(index, _)| alike.insert(index));
    alike
}
