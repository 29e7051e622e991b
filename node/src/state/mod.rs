//! What this node knows for good: the log of committed commands and what they add up to.
//!
//! The log is local for now; Raft will slide beneath [`NodeState::commit`] without a change above it.

pub mod keys;
mod log;
pub mod tenants;

use coordinator::cluster_state::{ClusterState, Rejected};
use log::Log;
pub use log::LogError;
use proto::cluster::ClusterCommand;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

#[derive(thiserror::Error, Debug)]
pub enum StateError {
    #[error("another node runs on {0}: stop it, or give this one a folder of its own with --data-dir")]
    Locked(PathBuf),
    #[error("{path}: {error}: check that the place exists and is yours, or choose another with --data-dir")]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// Shared by everything in the node that asks who may and what is served.
pub struct NodeState {
    applied: RwLock<ClusterState>,
    log: Mutex<Log>,
    /// Held for as long as the node lives.
    _lock: File,
}

impl NodeState {
    /// Locks the folder, replays its log. Makes the folder, readable by its owner only, where it is missing.
    pub fn open(data_dir: &Path) -> Result<NodeState, StateError> {
        let io_error = |error| StateError::Io {
            path: data_dir.to_owned(),
            error,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(io_error)?;
        let lock = File::create(data_dir.join("lock")).map_err(io_error)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StateError::Locked(data_dir.to_owned()))?;
        let mut applied = ClusterState::default();
        let log = Log::open(&data_dir.join("log"), |command| {
            // What was rejected when it was logged is rejected again, and changes nothing.
            let _ = applied.apply(&command);
        })?;
        Ok(NodeState {
            applied: RwLock::new(applied),
            log: Mutex::new(log),
            _lock: lock,
        })
    }

    /// Durable when it returns, and only then visible. What would be rejected is not logged.
    pub fn commit(&self, command: &ClusterCommand) -> Result<(), StateError> {
        let mut log: MutexGuard<'_, Log> = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        self.applied().accepts(command)?;
        log.append(command)?;
        self.applied
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .apply(command)?;
        Ok(())
    }

    pub fn applied(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.applied.read().unwrap_or_else(PoisonError::into_inner)
    }
}
