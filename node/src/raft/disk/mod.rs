//! Raft's memory: its log, vote and snapshot, durable and checked. Payloads are opaque here.
//!
//! ```text
//! raft.lock         locked while a process has the store open
//! raft/log.redb     one redb table of records; each record is sealed with a checksum of its own
//! raft/witness      two slots; the newer says which step was the last to be acknowledged
//! ```
//!
//! # What is promised
//!
//! A step (`Disk::commit`) is atomic and durable when it returns. Whatever was acknowledged reads back as it was
//! written, or opening and reading say `Corrupt`; loss and change are never silent, and what is missing is never taken
//! for empty. `Disk::open` never makes a store: who does (`Disk::make`) knows that no node has run on the folder
//! (`peers::folder`). `raft/` appears whole, by a rename.
//!
//! # Why a witness
//!
//! redb keeps the roots of its last two commits. After a crash the newer one may be torn, and redb then goes back to
//! the older one. That is right for a torn commit, which nobody was promised, and wrong for an acknowledged one that
//! the disk damaged later: from the file alone the two look the same. So the number of the last step is kept twice: as
//! a record inside redb, and in the witness, written and synced after redb's own sync and before `commit` returns.
//!
//! With `r` the number in redb and the slots of the witness written in turn (step `s` goes to slot `s % 2`, each in a
//! block of its own, so that writing one cannot harm the other), a crash can leave only this:
//!
//! | slots | how | so `r` must be |
//! |---|---|---|
//! | both whole, newest `w` | killed outside a step, or before redb's sync | `w` |
//! | both whole, newest `w` | killed after redb's sync, before the witness was written | `w + 1` |
//! | one whole, `w`; the other torn | killed while the witness of `w + 1` was written, hence after redb's sync | `w + 1` |
//!
//! All else is damage: a smaller `r` is an acknowledged step that was lost, a larger one a lost witness. A flipped bit
//! in the newer slot looks like the last row and is harmless: `r` itself is intact. A flipped bit in the older one
//! leaves `r = w`, which no crash does, and is refused; were it let pass, a lost step could hide behind a torn slot.
//! `open` brings the witness up to `r` before it returns, as what it shows may be acted upon.
//!
//! # Why two syncs
//!
//! A step costs redb's one sync and the witness's. One sync for both cannot do: a crash in the middle of it may keep
//! the witness and tear the step, which then looks like a lost acknowledged step, and a witness that lags by one says
//! nothing of the last step, which is just the one that redb may drop. Two durable moments in order are the least that
//! tells the two apart; redb's own two-phase commit also needs two, and still trusts one byte for which root is newest.
//!
//! # What is checked
//!
//! `open` drops the file's pages from the page cache, lets redb verify the checksum of every page, and reads every
//! record. A record's checksum covers which record it is, so one that lies in another's place is found. The manifest, a
//! record itself, holds the step, the bounds of the log and the checksum of every record that exists once: entries must
//! be there from first to last and nothing else beside them. Afterwards a page that is not what it was when it was last
//! read or written never reaches redb (`Sums`). A panic inside redb becomes `Corrupt`.
//!
//! # When it fails
//!
//! *Full disk*: nothing acknowledged is lost; the store reopens itself, and steps go on once there is space. *Failed
//! sync*: the kernel may have dropped what it could not write and yet show it to readers, so nothing that this handle
//! knows is to be trusted: it refuses everything until the store is opened anew, which verifies what the disk holds.
//! *Damage*: the same, and nothing more is written. (redb's own repair, tried while opening, may have been.)

mod change;
mod error;
mod fault;
mod file;
mod folder;
mod record;
mod records;
mod state;
mod store;
mod sums;
mod watched;
mod witness;

pub use change::Change;
pub use error::DiskError;
pub use state::Purged;
pub use store::{Disk, Snapshot};

#[cfg(test)]
pub(super) mod tests;
