//! A node of the cluster: everything that touches a clock, a socket, a file, a process, a thread or the environment.
//!
//! A request goes `http` (JSON) → `text` (template, tokenizer) → `gateway` (the seam) → the router, and comes back the
//! same way as tokens.

pub mod cli;
pub mod config;
pub mod constraint;
pub mod up;

pub mod gateway;
pub mod http;
pub mod text;

pub mod actors;
pub mod shard_host;

pub mod peers;
pub mod placement;
pub mod raft;
pub mod state;
pub mod transport;
pub mod trust;

pub mod control;
pub mod store;
pub mod telemetry;

pub mod bench;
pub mod client;

pub mod clock;
pub mod hex;
pub mod os;
pub mod path;
pub mod random;

#[cfg(test)]
mod wire_types;
