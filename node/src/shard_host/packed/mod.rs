//! Packed weights between one start and the next: a file in the store for each model, form of packing and rank.
//!
//! ```text
//! matrices       each at a multiple of 64 bytes
//! index          a frame of `proto::wire`, whose payload says where each matrix is, with its checksum
//! index length   u64, little-endian
//! ```
//! The file is a cache: made by the first start, mapped by the next, made anew where it is damaged or missing. It gets
//! its name by a rename after its bytes were synced, and each matrix is checked before it is used.

mod file;
mod index;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use file::PackedFile;
use kernels::PackedBytes;
use shard::PackedCache;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use writer::PackedWriter;

/// The packed file of one rank.
pub enum PackedStore {
    Reading {
        file: PackedFile,
        path: PathBuf,
    },
    Writing {
        writer: PackedWriter,
        path: PathBuf,
    },
    /// There is no such file, and none is made.
    Off,
}

impl PackedStore {
    /// `packing` is the device's number for the form of its packed weights.
    pub fn open(path: PathBuf, packing: u32) -> PackedStore {
        match PackedFile::open(&path, packing) {
            Ok(Some(file)) => PackedStore::Reading { file, path },
            Ok(None) => PackedStore::create(path, packing),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "packed weights cannot be used and are packed anew");
                PackedStore::create(path, packing)
            }
        }
    }

    fn create(path: PathBuf, packing: u32) -> PackedStore {
        match PackedWriter::create(&path, packing) {
            Ok(writer) => PackedStore::Writing { writer, path },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                tracing::debug!(path = %path.display(), "another process keeps these packed weights");
                PackedStore::Off
            }
            Err(error) => {
                writer::warn(&path, &error);
                PackedStore::Off
            }
        }
    }

    /// After the last matrix. What was packed gets to the disk in a thread of its own, while the replica serves.
    pub fn finish(self) {
        match self {
            PackedStore::Writing { writer, .. } => writer.finish(),
            PackedStore::Reading { .. } | PackedStore::Off => {}
        }
    }
}

impl PackedCache for PackedStore {
    fn find(&mut self, name: &str, outputs: &Range<usize>) -> Option<PackedBytes> {
        let PackedStore::Reading { file, path } = self else {
            return None;
        };
        let found = file.find(name, outputs);
        if found.is_none() {
            tracing::warn!(path = %path.display(), matrix = name, "packed weights are damaged; the next start packs again");
            // Whoever has it mapped keeps it; nobody else finds it.
            let _ = fs::remove_file(path);
            *self = PackedStore::Off;
        }
        found
    }

    fn keep(&mut self, name: &str, outputs: &Range<usize>, packed: &[u8]) {
        let PackedStore::Writing { writer, path } = self else {
            return;
        };
        if let Err(error) = writer.write(name, outputs, packed) {
            writer::warn(path, &error);
            *self = PackedStore::Off;
        }
    }
}
