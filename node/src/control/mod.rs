//! Client commands on this host: a Unix socket in the data folder that only the node's user can open.
//!
//! One request, one answer, one line of JSON each. Who may open the socket may ask.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ControlRequest {
    Status,
}

/// What `cluster status --json` prints.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct StatusReport {
    pub version: String,
    pub pid: u32,
    pub uptime_secs: u64,
    pub http: String,
    /// Can this node serve?
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
    pub replicas: Vec<ReplicaStatus>,
    pub tenants: usize,
    pub keys: usize,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ReplicaStatus {
    pub replica: u32,
    pub model: String,
    pub epoch: u64,
    /// `starting`, `loading, N%`, `ready`, `down: …`
    pub state: String,
    /// Device, ranks, memory; once it is ready.
    pub description: Option<String>,
    pub context_tokens_max: Option<u32>,
    pub running: u32,
    pub waiting: u32,
    pub blocks_total: u32,
    pub blocks_free: u32,
    pub blocks_cached: u32,
    pub steps: u64,
}

pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}
