use std::io;
use std::ops::Range;

/// Only `Full`, `Landed` and `Outside` leave the handle of use; after the others, open the store anew.
#[derive(thiserror::Error, Debug)]
pub enum DiskError {
    #[error("{place}: {error}: look after the disk, then start the node again, which checks what was kept")]
    Io { place: String, error: io::Error },
    #[error(
        "{place}: no space left ({error}): free some; what was kept is safe, and writing goes on by itself"
    )]
    Full { place: String, error: io::Error },
    #[error(
        "{place} is damaged ({what}): this node must not vote or lead with it. To repair it from the other nodes, start it \
         with --join and a token of theirs (`cluster token create`); if there are none, restore a backup"
    )]
    Corrupt { place: String, what: String },
    #[error("{place} is in use by another process: stop that one first, or choose another data folder")]
    Locked { place: String },
    #[error(
        "{place} was closed by an earlier failure ({cause}): start the node again, which checks what was kept"
    )]
    Poisoned { place: String, cause: String },
    /// A step that had failed for want of space was found to be complete, and another one was asked for, made without
    /// that knowledge. Nothing was done.
    #[error(
        "{place}: the step that found no space is there after all: read the state again before the next step"
    )]
    Landed { place: String },
    #[error(
        "entries {asked:?} were asked for, and {held:?} are kept: ask for those, or install the snapshot"
    )]
    Outside { asked: Range<u64>, held: Range<u64> },
}
