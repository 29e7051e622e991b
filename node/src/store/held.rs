//! Models by their digests: what other nodes may have of this store, and what it takes from them.

use super::chunk_set::ChunkSet;
use super::chunks::{self, CHUNK_BYTES, Manifest};
use super::error::StoreError;
use super::partial::Partial;
use super::{Check, Store, Stored, Use, refs, uses};
use crate::hex;
use std::fs::{self, File};
use std::io;

/// Of a model that is to be fetched from other nodes.
pub enum Opening {
    /// It is here already.
    Whole(Stored),
    Parts(Partial),
    /// Another process of this host fetches it, and will be done some time.
    Elsewhere,
}

/// Of a partial whose chunks have all landed.
pub enum Promotion {
    Whole(Stored),
    /// Some chunks were damaged on the disk, and are not here any more.
    Damaged,
}

impl Store {
    /// The model's file, in the store or where its user keeps it. Needs no lock; whoever opens it has it.
    pub fn find_held(&self, digest: &[u8; 32]) -> Result<Option<Stored>, StoreError> {
        let path = self.blob(digest);
        let stored = |path, bytes| Stored {
            path,
            digest: *digest,
            bytes,
        };
        if let Ok(data) = fs::metadata(&path) {
            return Ok(Some(stored(path, data.len())));
        }
        let sha256 = hex::encode(digest);
        let known = refs::all(&self.folder)?.into_iter();
        let own = known
            .filter(|known| known.sha256 == sha256)
            .find(|known| known.is_of_an_unchanged_file());
        Ok(own.map(|known| stored(known.spec.into(), known.bytes)))
    }

    /// As [`Store::take`], of a model that is here.
    pub fn take_held(&self, digest: &[u8; 32]) -> Result<Option<(Stored, Use)>, StoreError> {
        let _lock = self.lock()?;
        let Some(stored) = self.find_held(digest)? else {
            return Ok(None);
        };
        let sha256 = hex::encode(digest);
        uses::note(&self.folder, &sha256);
        Ok(Some((stored, uses::begin(&self.folder, &sha256)?)))
    }

    /// What the chunks of a model that is here must be. Blocks, and reads the whole file where nobody has asked before; then
    /// the file is verified too, so that no manifest is made of a damaged one.
    pub fn manifest(&self, stored: &Stored) -> Result<Manifest, StoreError> {
        if let Some(kept) = self.kept_manifest(stored) {
            return Ok(kept);
        }
        let made = chunks::of_file(&stored.path, CHUNK_BYTES);
        let (digest, manifest) = made.map_err(StoreError::io(&stored.path))?;
        if digest != stored.digest {
            return Err(StoreError::Damaged(stored.path.clone()));
        }
        self.keep_manifest(&digest, &manifest)?;
        Ok(manifest)
    }

    /// `None`: it is yet to be made.
    pub fn kept_manifest(&self, stored: &Stored) -> Option<Manifest> {
        let kept = chunks::recall(&chunks::place(&self.folder, &hex::encode(&stored.digest)));
        kept.filter(|kept| kept.file_bytes == stored.bytes)
    }

    pub(super) fn keep_manifest(&self, digest: &[u8; 32], manifest: &Manifest) -> Result<(), StoreError> {
        let place = chunks::place(&self.folder, &hex::encode(digest));
        chunks::keep(&place, manifest).map_err(StoreError::io(place))
    }

    /// Begins to fetch a model, or goes on with what has come of it earlier. Waits while another process works in the store.
    pub fn open_partial(&self, digest: &[u8; 32], manifest: &Manifest) -> Result<Opening, StoreError> {
        let _lock = self.lock()?;
        if let Some(stored) = self.held(digest, manifest.file_bytes, Check::Length)? {
            return Ok(Opening::Whole(stored));
        }
        uses::note(&self.folder, &hex::encode(digest));
        let opened = Partial::open(&self.folder, *digest, manifest.clone())?;
        Ok(opened.map_or(Opening::Elsewhere, Opening::Parts))
    }

    /// Makes a blob of a partial that is whole: every byte is read again first. A crash leaves a partial or a blob. Blocks.
    ///
    /// Errors: the chunks are what the manifest says and the file is not what its digest says, so the manifest is a wrong one;
    /// then nothing is kept.
    ///
    /// # Panics
    /// When chunks are missing.
    pub fn promote(&self, partial: &Partial) -> Result<Promotion, StoreError> {
        assert!(partial.is_whole(), "only a whole file is promoted");
        partial.settle()?;
        let manifest = partial.manifest();
        let read = chunks::of_file(&partial.path(), manifest.chunk_bytes);
        let (digest, found) = read.map_err(StoreError::io(partial.path()))?;
        if digest == partial.digest() {
            return self.admit_partial(partial).map(Promotion::Whole);
        }
        if found == *manifest {
            let _lock = self.lock()?;
            partial.discard();
            return Err(StoreError::WrongDigest {
                spec: "what other nodes hold".to_owned(),
                expected: hex::encode(&partial.digest()),
                found: hex::encode(&digest),
            });
        }
        let mut damaged = ChunkSet::none(manifest.chunks());
        let pairs = manifest.digests.iter().zip(&found.digests).enumerate();
        for (index, _) in pairs.filter(|(_, (expected, found))| expected != found) {
            damaged.insert(index as u32);
        }
        partial.forget(&damaged)?;
        Ok(Promotion::Damaged)
    }

    fn admit_partial(&self, partial: &Partial) -> Result<Stored, StoreError> {
        let digest = partial.digest();
        let _lock = self.lock()?;
        self.keep_manifest(&digest, partial.manifest())?;
        let path = self.blob(&digest);
        let rename = || -> io::Result<()> {
            fs::rename(partial.path(), &path)?;
            File::open(self.folder.join("blobs"))?.sync_all()
        };
        rename().map_err(StoreError::io(&path))?;
        partial.leave();
        Ok(Stored {
            path,
            digest,
            bytes: partial.manifest().file_bytes,
        })
    }
}
