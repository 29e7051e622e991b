//! Digests of a file's chunks, so that each can be verified as it comes, from whomever.
//!
//! Kept beside the blob under `chunks/<sha256>`: the SHA-256 of what follows, then the manifest's canonical bytes:
//!
//! ```text
//!  0  "cluster chunks 1"
//! 16  length of the file   u64
//! 24  length of a chunk    u32   the last one may be shorter
//! 28  SHA-256 of each chunk
//! ```
//! All integers are little-endian.

use crate::hex;
use crate::random;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

/// The same on all nodes, since the cluster may agree on a manifest's digest.
pub const CHUNK_BYTES: u32 = 4 << 20;

const MAGIC: &[u8; 16] = b"cluster chunks 1";
const HEAD_BYTES: usize = 28;
const DIGEST_BYTES: usize = 32;
/// Read ahead of the slower of two hashes.
const AHEAD: usize = 4;

/// What each chunk of a file must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub file_bytes: u64,
    pub chunk_bytes: u32,
    pub digests: Vec<[u8; 32]>,
}

impl Manifest {
    /// SHA-256 of the canonical bytes: whoever knows it can take the manifest from anybody.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_bytes()).into()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.digests.len() * DIGEST_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.file_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.chunk_bytes.to_le_bytes());
        bytes.extend_from_slice(self.digests.as_flattened());
        bytes
    }

    /// `None`: these are no manifest's canonical bytes, or its chunks are larger than [`CHUNK_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Manifest> {
        let (head, digests) = bytes.split_at_checked(HEAD_BYTES)?;
        let (digests, rest) = digests.as_chunks::<DIGEST_BYTES>();
        let file_bytes = u64::from_le_bytes(head[16..24].try_into().ok()?);
        let chunk_bytes = u32::from_le_bytes(head[24..28].try_into().ok()?);
        let fits = head.starts_with(MAGIC)
            && rest.is_empty()
            && (1..=CHUNK_BYTES).contains(&chunk_bytes)
            && file_bytes.div_ceil(u64::from(chunk_bytes)) == digests.len() as u64
            && u32::try_from(digests.len()).is_ok();
        fits.then(|| Manifest {
            file_bytes,
            chunk_bytes,
            digests: digests.to_vec(),
        })
    }

    /// How many there are.
    pub fn chunks(&self) -> u32 {
        self.digests.len() as u32
    }

    /// Where a chunk lies in the file; empty beyond its end.
    pub fn place(&self, index: u32) -> Range<u64> {
        let start = (u64::from(index) * u64::from(self.chunk_bytes)).min(self.file_bytes);
        start..(start + u64::from(self.chunk_bytes)).min(self.file_bytes)
    }

    /// Are these the bytes of that chunk?
    pub fn verifies(&self, index: u32, bytes: &[u8]) -> bool {
        let expected = self.digests.get(index as usize);
        expected.is_some_and(|expected| *expected == <[u8; 32]>::from(Sha256::digest(bytes)))
    }
}

/// SHA-256 of the whole file, and its manifest. The file is read once, and both are computed side by side.
pub fn of_file(path: &Path, chunk_bytes: u32) -> io::Result<([u8; 32], Manifest)> {
    let mut file = File::open(path)?;
    let (sender, chunks) = sync_channel::<Arc<Vec<u8>>>(AHEAD);
    std::thread::scope(|scope| {
        let digests = scope.spawn(move || {
            let digests = chunks.iter().map(|chunk| Sha256::digest(chunk.as_slice()).into());
            digests.collect::<Vec<[u8; 32]>>()
        });
        let mut whole = Sha256::new();
        let mut file_bytes = 0;
        loop {
            let mut chunk = Vec::new();
            (&mut file).take(chunk_bytes.into()).read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                break;
            }
            file_bytes += chunk.len() as u64;
            let chunk = Arc::new(chunk);
            // Whoever receives ends after this does.
            let _ = sender.send(Arc::clone(&chunk));
            whole.update(chunk.as_slice());
        }
        drop(sender);
        let digests = digests.join().expect("hashing does not panic");
        let manifest = Manifest {
            file_bytes,
            chunk_bytes,
            digests,
        };
        Ok((whole.finalize().into(), manifest))
    })
}

/// What was kept for this model. `None`: nothing, or nothing that is whole, which is the same.
pub fn recall(path: &Path) -> Option<Manifest> {
    let kept = fs::read(path).ok()?;
    let (digest, bytes) = kept.split_at_checked(DIGEST_BYTES)?;
    let is_whole = digest == Sha256::digest(bytes).as_slice();
    Manifest::from_bytes(bytes).filter(|_| is_whole)
}

/// At once or not at all. Needs no lock: whoever keeps a model's manifest keeps the same.
pub fn keep(path: &Path, manifest: &Manifest) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension(hex::encode(&random::bytes::<8>()));
    let write = || -> io::Result<()> {
        fs::create_dir_all(parent)?;
        let mut file = File::create(&temporary)?;
        file.write_all(&manifest.digest())?;
        file.write_all(&manifest.to_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Where the manifest of a whole model is kept.
pub fn place(store: &Path, sha256: &str) -> PathBuf {
    store.join("chunks").join(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_bytes_are_read_again_and_nothing_else_is() {
        let manifest = Manifest {
            file_bytes: 25,
            chunk_bytes: 10,
            digests: vec![[1; 32], [2; 32], [3; 32]],
        };
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::from_bytes(&bytes), Some(manifest.clone()));
        assert_eq!(
            [0, 1, 2, 3].map(|index| manifest.place(index)),
            [0..10, 10..20, 20..25, 25..25]
        );
        for end in 0..bytes.len() {
            assert_eq!(Manifest::from_bytes(&bytes[..end]), None, "cut at {end}");
        }
        for (at, byte) in [(0, 0), (16, 31), (16, 20), (24, 0), (27, 0x10)] {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            assert_eq!(Manifest::from_bytes(&wrong), None, "byte {at}");
        }
    }
}
