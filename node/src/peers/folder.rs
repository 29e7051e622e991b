//! What of a node's membership lies in its data folder.
//!
//! ```text
//! lock                     held while a node runs on the folder
//! identity/key.pem         the node's own key; made here, never sent
//! identity/chain.pem       its certificate, renewed every 12 hours
//! identity/authorities.pem whose signatures it believes
//! identity/joined-with     the hash of the authority that its token was for, which may have been replaced since
//! authority/               the authority's certificate and key, on nodes that may vote
//! raft/                    log, vote and snapshot
//! epochs                   where the epochs of its next run may begin
//! before-<time>/           what the node was before it was repaired or recovered
//! ```

use crate::hex;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(thiserror::Error, Debug)]
pub enum FolderError {
    #[error("another node runs on {0}: stop it, or give this one a folder of its own with --data-dir")]
    Locked(PathBuf),
    #[error("{path}: {error}: check that the place exists and is yours, or choose another with --data-dir")]
    Io { path: PathBuf, error: io::Error },
}

/// Locked for as long as this lives.
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder, readable by its owner only, where it is missing.
    pub fn lock(path: &Path) -> Result<DataFolder, FolderError> {
        make_private(path)?;
        let io_error = |error| FolderError::Io {
            path: path.to_owned(),
            error,
        };
        let lock = File::create(path.join("lock")).map_err(io_error)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| FolderError::Locked(path.to_owned()))?;
        let folder = DataFolder {
            path: path.to_owned(),
            _lock: lock,
        };
        make_private(&folder.path.join("identity"))?;
        make_private(&folder.path.join("authority"))?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn key(&self) -> PathBuf {
        self.path.join("identity/key.pem")
    }

    pub fn chain(&self) -> PathBuf {
        self.path.join("identity/chain.pem")
    }

    pub fn authorities(&self) -> PathBuf {
        self.path.join("identity/authorities.pem")
    }

    /// Whether this is the authority of the token that once let this node in.
    pub fn has_joined_with(&self, authority: &[u8; 32]) -> bool {
        let kept = fs::read_to_string(self.joined_with());
        kept.is_ok_and(|kept| kept.trim() == hex::encode(authority))
    }

    /// See [`DataFolder::has_joined_with`].
    pub fn remember_joining(&self, authority: &[u8; 32]) -> Result<(), FolderError> {
        let path = self.joined_with();
        fs::write(&path, hex::encode(authority)).map_err(|error| FolderError::Io { path, error })
    }

    fn joined_with(&self) -> PathBuf {
        self.path.join("identity/joined-with")
    }

    pub fn authority_certificate(&self) -> PathBuf {
        self.path.join("authority/certificate.pem")
    }

    pub fn authority_key(&self) -> PathBuf {
        self.path.join("authority/key.pem")
    }

    pub fn epochs(&self) -> PathBuf {
        self.path.join("epochs")
    }

    /// Moves what this node was out of the way, so that it can become a new one: whoever loses his memory must not go on
    /// under his old name. Gives where it is now.
    pub fn set_aside(&self, at_secs: u64) -> Result<PathBuf, FolderError> {
        let aside = self.path.join(format!("before-{at_secs}"));
        make_private(&aside)?;
        for name in ["raft", "identity"] {
            let from = self.path.join(name);
            fs::rename(&from, aside.join(name)).map_err(|error| FolderError::Io { path: from, error })?;
        }
        make_private(&self.path.join("identity"))?;
        Ok(aside)
    }
}

fn make_private(path: &Path) -> Result<(), FolderError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| FolderError::Io {
        path: path.to_owned(),
        error,
    })
}
