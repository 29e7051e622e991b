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
    pub node: u64,
    pub quic: String,
    pub raft: RaftStatus,
    pub nodes: Vec<NodeStatus>,
    pub replicas: Vec<ReplicaStatus>,
    /// A node that still runs an earlier program tells of none.
    #[serde(default)]
    pub deployments: Vec<DeploymentStatus>,
    /// Of the last few hundred streams; `null` before the first.
    pub first_token_ms: Option<FirstToken>,
    pub tenants: usize,
    pub keys: usize,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ReplicaStatus {
    pub replica: u32,
    /// Where it lives.
    pub node: u64,
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

/// A model that goes where the cluster says.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct DeploymentStatus {
    pub model: String,
    /// How many there are to be.
    pub replicas: u32,
    pub placed: Vec<PlacementStatus>,
    /// Why there are fewer, or why one stays where it should not be, as the node that leads says; `null` also where that cannot
    /// be asked.
    pub waits_for: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct PlacementStatus {
    pub replica: u32,
    /// In the order of the layers.
    pub stages: Vec<StageStatus>,
    /// KV blocks of every stage.
    pub blocks: u32,
    /// Of one stream.
    pub decode_tokens_per_sec: Expectation,
    pub prefill_tokens_per_sec: Expectation,
    /// The part of the stages' time that was lost while there was work; on the node of the last stage.
    pub bubble: Option<f64>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct StageStatus {
    pub node: u64,
    pub layer_first: u32,
    /// One after the last.
    pub layer_end: u32,
    pub ranks: u32,
    pub memory_bytes: u64,
    /// Its part of what all stages have computed since the epoch began, 0 to 1; on the node of the last stage.
    pub share: Option<f64>,
}

/// What was predicted when it was placed, and what is measured.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Expectation {
    pub predicted: f64,
    pub measured: Option<f64>,
}

/// How the cluster agrees, as this node sees it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct RaftStatus {
    /// `null`: none is known, and changes have to wait.
    pub leader: Option<u64>,
    pub term: u64,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    pub last_index: u64,
    pub applied_index: u64,
    pub feature_level: u32,
    /// Why this node takes no part, or cannot write.
    pub trouble: Option<String>,
}

/// What `cluster node list --json` prints.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Nodes {
    pub nodes: Vec<NodeStatus>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct NodeStatus {
    pub node: u64,
    /// `voter` or `worker`: what it may become.
    pub role: String,
    /// `leader`, `voter`, `learner`, or `waiting` until it is one of them.
    pub part: String,
    /// What it serves by its own choice is not used, and what was placed there goes elsewhere where it can.
    pub drained: bool,
    pub quic: String,
    pub http: String,
    /// Is there a connection from the node that was asked? It is connected with itself.
    pub connected: bool,
    pub round_trip_ms: Option<f64>,
    pub joined_at_secs: u64,
}

/// What becomes of the models on a node that is drained.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct DrainReport {
    /// Placed there by the cluster: they go elsewhere, and are served there until they have come up.
    pub moves: Vec<String>,
    /// Placed there by the cluster, and there is no other place now: they are served there until there is.
    pub stays: Vec<StayingModel>,
    /// That the node serves by its own choice, and no other node does: their requests are refused.
    pub unserved: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StayingModel {
    pub model: String,
    pub reason: String,
}

/// What `cluster token create --json` prints: the only time that the token is seen.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct CreatedToken {
    pub token: String,
    pub id: String,
    pub role: String,
    pub expires_at_secs: u64,
}

/// What `cluster backup` writes.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Hexadecimal digits of the file.
    pub file: String,
    /// The last entry of the log that is in it.
    pub index: u64,
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

/// How far a deployment has come.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct DeployReport {
    pub step: DeployStep,
    /// What goes where, and why.
    pub reasons: Vec<String>,
    /// Why it is not placed or, once it is, what keeps it from serving, as far as the asked node knows.
    pub waits_for: Option<String>,
}

impl DeployReport {
    pub fn at(step: DeployStep) -> DeployReport {
        DeployReport {
            step,
            reasons: Vec::new(),
            waits_for: None,
        }
    }
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum DeployStep {
    /// The node fetches the file, or reads it.
    Reading,
    /// Nodes that have just joined measure what they can do.
    Measuring,
    /// Nothing was changed.
    Planned,
    /// For nodes with room for it.
    Waiting,
    /// It is placed, and loads.
    Starting,
    Serving,
}
