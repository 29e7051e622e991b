//! Agreement: openraft over our disk, our messages and our state.
//!
//! ```text
//! types ── convert ── log_store ─┐
//!                     state_machine ── journal ── disk
//! member (one run of Raft, and its restarts) ── link ── other members
//! ```
//!
//! Raft trusts its voters to forget nothing. `dispute` and `acknowledged` hold what members say against what is known here.

pub mod disk;

mod acknowledged;
mod convert;
mod dispute;
mod end;
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
mod view;
mod voting;

pub use kept::{WrittenState, checked};
pub use link::{LinkError, Links};
pub use log_store::OpenError;
pub use member::{CommitError, Member, OpenDisk};
pub use proposal::propose;
pub use state_machine::AppliedState;
pub use view::MemberView;
