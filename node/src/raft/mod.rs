//! Raft: what the nodes of a cluster agree upon, and where it is kept.

pub mod disk;
