//! The vocabulary: every word the rooms of the cluster say to each other, and nothing else.
//!
//! No IO, no clock, no decision. Read the modules in this order:
//! ids and time, what a client asks for, what a step computes, what engine and gateway exchange, what the cluster
//! agrees on, what nodes say to each other and to who wants to be one, how models go between them, and how any of it looks on a wire.
#![forbid(unsafe_code)]

pub mod block_hash;
pub mod cluster;
pub mod engine;
pub mod ids;
pub mod join;
pub mod peer;
pub mod raft;
pub mod request;
pub mod stage;
pub mod step;
pub mod time;
pub mod weights;
pub mod wire;

pub use block_hash::BlockHash;
pub use ids::{
    AdapterId, Attempt, BlockId, Epoch, GroupId, NodeId, Position, ReplicaId, RequestId, SequenceId, StepId,
    StreamId, TenantId,
};
pub use time::{Span, Time};
