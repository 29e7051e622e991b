//! What can go wrong between a spec and a file.

use crate::path::in_full;
use std::io;
use std::path::PathBuf;

/// One source could not give the file. With a catalogue name the next source is tried.
#[derive(thiserror::Error, Debug)]
pub enum SourceError {
    #[error("no answer from {endpoint} for {secs} s")]
    Silent { endpoint: String, secs: u64 },
    #[error("{program} cannot be started ({error})")]
    NoPython { program: String, error: io::Error },
    #[error("{0}")]
    Broken(String),
    #[error("{}", .0)]
    Io(#[from] io::Error),
}

#[derive(thiserror::Error, Debug)]
pub enum StoreError {
    #[error(
        "no model file at {}: check the path, or use a name such as {default}",
        in_full(.0).display(),
        default = super::catalogue::DEFAULT
    )]
    NoFile(PathBuf),
    #[error("{0} is a folder: Hugging Face folders are not read yet, give a .gguf file")]
    Folder(PathBuf),
    #[error("disk full while writing to {0}: free some space, or choose another place with --store")]
    DiskFull(PathBuf),
    #[error("{path}: {error}: check that the place exists and is yours, or choose another with --store")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{spec} could not be fetched ({reasons}): check the name, and that this machine reaches where it lies, or name a local \
         file instead (FILE.gguf, as in --model FILE.gguf)"
    )]
    Unreachable { spec: String, reasons: String },
    #[error("{spec} has the wrong digest: expected {expected}, found {found}; nothing was kept")]
    WrongDigest {
        spec: String,
        expected: String,
        found: String,
    },
    #[error(
        "{0} has changed on the disk: run `cluster pull` for a file of the store, or put your own one back"
    )]
    Damaged(PathBuf),
}

impl StoreError {
    /// Is it the disk of this node that fails, whatever the source? No other source helps then.
    pub fn is_of_own_disk(&self) -> bool {
        match self {
            StoreError::DiskFull(_) | StoreError::Io { .. } => true,
            StoreError::NoFile(_)
            | StoreError::Folder(_)
            | StoreError::Unreachable { .. }
            | StoreError::WrongDigest { .. }
            | StoreError::Damaged(_) => false,
        }
    }

    /// For mapping: what went wrong while working at `path`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull(path),
            _ => StoreError::Io { path, error },
        }
    }
}
