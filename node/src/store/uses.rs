//! When a model was last used, and whether it is being used now.
//!
//! One empty file for each model under `uses/`, named by the model's SHA-256: its time is the last use, and whoever serves
//! the model holds a shared lock on it. Times are best effort, since a store may belong to several users.

use super::error::StoreError;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, futimens};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// While it is held the model is not collected, by whichever process. Its end counts as a use.
#[derive(Debug)]
pub struct Use {
    locked: File,
}

impl Drop for Use {
    fn drop(&mut self) {
        touch(&self.locked);
    }
}

/// Notes that the model is used now, where that can be written.
pub fn note(store: &Path, sha256: &str) {
    if let Ok(file) = open(&path(store, sha256)) {
        touch(&file);
    }
}

/// Errors: the file of uses can be neither made nor opened, or the system has no locks.
pub fn begin(store: &Path, sha256: &str) -> Result<Use, StoreError> {
    let path = path(store, sha256);
    // Another user's can be locked, but not written.
    let file = open(&path)
        .or_else(|error| File::open(&path).map_err(|_| error))
        .map_err(StoreError::io(&path))?;
    flock(&file, FlockOperation::LockShared).map_err(|error| StoreError::io(&path)(error.into()))?;
    touch(&file);
    Ok(Use { locked: file })
}

/// `None`: never, as far as is known.
pub fn last(store: &Path, sha256: &str) -> Option<SystemTime> {
    fs::metadata(path(store, sha256)).ok()?.modified().ok()
}

/// Does anybody hold a [`Use`]? Where that cannot be found out, yes.
pub fn goes_on(store: &Path, sha256: &str) -> bool {
    match File::open(path(store, sha256)) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
}

fn touch(file: &File) {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    // Then it counts as used when it was before.
    let _ = futimens(file, &times);
}

fn path(store: &Path, sha256: &str) -> PathBuf {
    store.join("uses").join(sha256)
}
