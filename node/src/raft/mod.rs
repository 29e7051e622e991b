//! Agreement: openraft over our disk, our messages and our state.
//!
//! ```text
//! types ── convert ── log_store ─┐
//!                     state_machine ── journal ── disk
//! member (one run of Raft, and its restarts) ── link ── other members
//! ```

pub mod disk;

mod convert;
mod journal;
mod kept;
mod leaving;
mod link;
mod log_store;
mod member;
mod proposal;
mod state_machine;
#[cfg(test)]
mod tests;
mod types;
mod voting;

pub use kept::WrittenState;
pub use link::{LinkError, Links};
pub use log_store::OpenError;
pub use member::{CommitError, Member, MemberView, OpenDisk};
pub use proposal::propose;
pub use state_machine::AppliedState;
