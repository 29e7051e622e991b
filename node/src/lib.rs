//! A node of the cluster: everything that touches a clock, a socket, a file, a process, a thread or the environment.
//!
//! A request goes `http` (JSON) → `text` (template, tokenizer) → `gateway` (the seam) → the router, and comes back the
//! same way as tokens.

pub mod bench;
pub mod gateway;
pub mod http;
pub mod text;
