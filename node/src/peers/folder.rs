//! What of a node's membership lies in its data folder.
//!
//! ```text
//! lock                     held while a node runs on the folder
//! identity/key.pem         the node's own key; made here, never sent
//! identity/chain.pem       its certificate, renewed every 12 hours
//! identity/authorities.pem whose signatures it believes
//! identity/authorities-as-of  up to where in the log, in changes, that was read
//! identity/joined-with     the hash of the authority that its token was for, which may have been replaced since
//! authority/               the authority's certificate and key, on nodes that may vote
//! authority/second/        the same of another one, while one takes over from the other; then one of the two stays
//! raft/                    log, vote and snapshot
//! epochs                   where the epochs of its next run may begin
//! former                   who it was, while it is being repaired: it is to join as a new node, and may not found a cluster
//! before-<time>/           what the node was before it was repaired or recovered
//! ```

use super::former::Former;
use crate::hex;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

#[derive(thiserror::Error, Debug)]
pub enum FolderError {
    #[error("another node runs on {0}: stop it, or give this one a folder of its own with --data-dir")]
    Locked(PathBuf),
    #[error("{path}: {error}: check that the place exists and is yours, or choose another with --data-dir")]
    Io { path: PathBuf, error: io::Error },
}

pub(super) const FORMER: &str = "former";
/// With the time, of what a node was before.
const ASIDE: &str = "before-";
/// Of a node that its cluster has removed.
const REMOVED: &str = "removed";

/// What a data folder has of the log of a node that ran on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// No node has run here.
    New,
    /// There is one; whether it is whole is seen when it is opened.
    Kept,
    /// A node has run here, and its log is gone. It must not begin anew under its old name: it has voted.
    Lost,
}

impl Memory {
    /// A node makes `raft/` before any of the other traces, so that without it they are of one that had it.
    pub fn of(data_dir: &Path) -> Memory {
        let traces = ["key.pem", "chain.pem", "authorities.pem", "joined-with"];
        let mut traces = traces.iter().map(|name| data_dir.join("identity").join(name));
        if data_dir.join("raft").exists() {
            Memory::Kept
        } else if traces.any(|path| path.exists())
            || ["epochs", FORMER].iter().any(|name| data_dir.join(name).exists())
        {
            Memory::Lost
        } else {
            Memory::New
        }
    }
}

/// What a member leaves to the one that takes its place, unless it is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Authority,
    Epochs,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Authority => "authority",
            Part::Epochs => "epochs",
        }
    }
}

/// Where an authority lies. While one takes over from the other there are two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthorityPlace {
    First,
    Second,
}

impl AuthorityPlace {
    pub const ALL: [AuthorityPlace; 2] = [AuthorityPlace::First, AuthorityPlace::Second];

    fn folder(self) -> &'static str {
        match self {
            AuthorityPlace::First => "authority",
            AuthorityPlace::Second => "authority/second",
        }
    }
}

/// Does a process hold this folder? One that cannot be looked into is held by nobody who could be asked.
pub fn is_held(path: &Path) -> bool {
    let lock = File::open(path.join("lock"));
    lock.is_ok_and(|lock| {
        flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

/// Whoever only looks whether it is held has it for a moment.
fn take(lock: &File) -> rustix::io::Result<()> {
    const TRIES: usize = 5;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 1..TRIES {
        if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(());
        }
        sleep(PAUSE);
    }
    flock(lock, FlockOperation::NonBlockingLockExclusive)
}

/// Locked for as long as this lives.
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Where a log was set aside last.
pub fn last_aside(data_dir: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(data_dir).ok()?.flatten();
    let asides = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE));
    let with_log = asides
        .map(|entry| entry.path())
        .filter(|path| path.join("raft").is_dir());
    with_log.max_by_key(|path| path.metadata().and_then(|found| found.modified()).ok())
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
        take(&lock).map_err(|_| FolderError::Locked(path.to_owned()))?;
        let folder = DataFolder {
            path: path.to_owned(),
            _lock: lock,
        };
        folder.make_folders()?;
        Ok(folder)
    }

    pub(super) fn make_folders(&self) -> Result<(), FolderError> {
        make_private(&self.path.join("identity"))?;
        for place in AuthorityPlace::ALL {
            make_private(&self.path.join(place.folder()))?;
        }
        Ok(())
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

    /// Whom this node believes was read when the log had come to so many changes; 0 where that was not written down.
    pub fn authorities_as_of(&self) -> u64 {
        let kept = fs::read_to_string(self.as_of());
        kept.ok().and_then(|kept| kept.trim().parse().ok()).unwrap_or(0)
    }

    /// See [`DataFolder::authorities_as_of`]. To be written before what was read: too late a place makes a node wait for
    /// what it has, too early a one makes it forget.
    pub fn remember_as_of(&self, version: u64) -> Result<(), FolderError> {
        let path = self.as_of();
        fs::write(&path, version.to_string()).map_err(|error| FolderError::Io { path, error })
    }

    fn as_of(&self) -> PathBuf {
        self.path.join("identity/authorities-as-of")
    }

    pub fn authority_certificate(&self, place: AuthorityPlace) -> PathBuf {
        self.path.join(place.folder()).join("certificate.pem")
    }

    pub fn authority_key(&self, place: AuthorityPlace) -> PathBuf {
        self.path.join(place.folder()).join("key.pem")
    }

    /// What lies there is deleted, the key first. Nothing where there is none.
    pub fn clear_authority(&self, place: AuthorityPlace) -> Result<(), FolderError> {
        remove(&self.authority_key(place))?;
        remove(&self.authority_certificate(place))
    }

    pub fn epochs(&self) -> PathBuf {
        self.path.join("epochs")
    }

    /// The cluster has removed this node: a service manager that looks for this file does not start it again and again.
    pub fn remember_removed(&self) -> Result<(), FolderError> {
        let path = self.path.join(REMOVED);
        write_durably(&path, "").map_err(|error| FolderError::Io { path, error })
    }

    /// Somebody starts it all the same.
    pub fn forget_removed(&self) {
        // What stays there keeps only a service manager from starting it.
        let _ = fs::remove_file(self.path.join(REMOVED));
    }

    /// From now on this node is to join as a new one, in the place of this one. On the disk when this returns: what else says
    /// who it was is moved away next.
    pub fn remember_former(&self, former: Former) -> Result<(), FolderError> {
        let path = self.path.join(FORMER);
        write_durably(&path, &former.text()).map_err(|error| FolderError::Io { path, error })
    }

    /// Whether a repair has begun, and not come to its end.
    pub fn is_to_join_anew(&self) -> bool {
        self.path.join(FORMER).exists()
    }

    /// Who this node was, while it is being repaired.
    pub fn former(&self) -> Option<Former> {
        let kept = fs::read(self.path.join(FORMER)).ok()?;
        Some(Former::read(&String::from_utf8_lossy(&kept)))
    }

    /// It has joined.
    pub fn forget_former(&self) -> Result<(), FolderError> {
        remove(&self.path.join(FORMER))
    }

    /// Where what this node was can be moved to.
    pub fn free_aside(&self, at_secs: u64) -> String {
        let name = format!("{ASIDE}{at_secs}");
        let others = (2..).map(|count| format!("{name}-{count}"));
        let mut names = std::iter::once(name.clone()).chain(others);
        let free = names.find(|name| !self.path.join(name).exists());
        free.expect("the names do not end")
    }

    /// Moves what this node was out of the way, so that it can become a new one: whoever loses his memory must not go on
    /// under his old name. What is missing is missing there too. `also`: what else is of no use. `aside`: a name of
    /// [`DataFolder::free_aside`]. Gives where it is now.
    pub fn set_aside(&self, aside: &str, also: &[Part]) -> Result<PathBuf, FolderError> {
        let aside = self.path.join(aside);
        make_private(&aside)?;
        let also = also.iter().map(|part| part.name());
        for name in ["raft", "identity"].into_iter().chain(also) {
            let from = self.path.join(name);
            match fs::rename(&from, aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FolderError::Io { path: from, error });
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.make_folders()?;
        Ok(aside)
    }
}

/// A file or a folder; nothing where there is none.
pub(super) fn remove(path: &Path) -> Result<(), FolderError> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FolderError::Io {
            path: path.to_owned(),
            error,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn make_private(path: &Path) -> Result<(), FolderError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| FolderError::Io {
        path: path.to_owned(),
        error,
    })
}
