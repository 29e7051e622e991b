//! What the node answers on its socket, and what commands print with `--json`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
    /// Of the last few hundred streams; `null` before the first.
    pub first_token_ms: Option<FirstToken>,
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
    /// Counters since the epoch began.
    pub steps: u64,
    pub preemptions: u64,
    pub sampled_tokens: u64,
    pub computed_tokens: u64,
    pub prefix_queried_tokens: u64,
    pub prefix_hit_tokens: u64,
}

/// From admission to the first token, in milliseconds.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct FirstToken {
    pub p50: f64,
    pub p95: f64,
}

/// How a command of this host reaches the HTTP interface.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct Access {
    pub url: String,
    /// Opens the interface for as long as the node lives.
    pub key: String,
    /// PEM file with the node's own certificate, where it speaks HTTPS.
    pub certificate: Option<PathBuf>,
}

/// What `cluster key create --json` prints: the only time that the key is seen.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct CreatedKey {
    pub key: String,
    pub id: String,
    pub tenant: String,
    pub name: Option<String>,
}

/// What `cluster key list --json` prints.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    pub keys: Vec<KeyStatus>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct KeyStatus {
    pub id: String,
    pub tenant: String,
    pub name: Option<String>,
    /// Seconds since 1970.
    pub created_at_secs: u64,
}

/// What `cluster tenant list --json` prints.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Tenants {
    pub tenants: Vec<TenantStatus>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct TenantStatus {
    pub name: String,
    pub keys: usize,
}
