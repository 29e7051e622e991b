//! What the stages of a pipeline say to each other. The last one, the head, plans; plans go from it to all others, each
//! over a stream of its own, and what a stage computes goes on to the next.

use crate::NodeId;
use crate::step::StepPlan;
use rkyv::{Archive, Deserialize, Serialize};

/// The head's first word to a stage, in a new epoch: whatever it did before is over.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StageBegin {
    /// Where this stage sends what it has computed.
    pub next: StageAddress,
    /// What it is taken to be: one that is another says so, and ends the stream.
    pub part: StagePart,
}

/// What a stage has.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct StagePart {
    pub layer_first: u32,
    /// One after the last.
    pub layer_end: u32,
    /// Pages of KV cache.
    pub blocks: u32,
    /// Rows of a step at most.
    pub step_tokens_max: u32,
}

/// The stage's answer, once its weights are there and the next stage is reached.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct StageReady {
    /// As in [`crate::engine::ReplicaInfo::numerics`].
    pub numerics: u64,
    /// What its steps cost, as measured when it came up: seconds = fixed + per_token · tokens + per_context · context.
    pub fixed_secs: f64,
    pub per_token_secs: f64,
    pub per_context_secs: f64,
}

/// One plan for one stage. Plans are computed in the order in which they are sent.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct StageStep {
    pub plan: StepPlan,
    /// Of all rows, in the order of the slices, for the first stage; empty for the others.
    pub tokens: Vec<u32>,
}

/// Where a process that computes a stage takes connections. It has a port of its own.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StageAddress {
    pub node: NodeId,
    /// `address:port`.
    pub quic: String,
}

/// What a stage shows, and believes, from now on in new connections: certificates run out, and authorities change.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StageTrust {
    /// DER, the node's own first.
    pub chain: Vec<Vec<u8>>,
    /// DER.
    pub authorities: Vec<Vec<u8>>,
}

/// Of all stages of a replica, in their order.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StageAddresses {
    pub stages: Vec<StageAddress>,
}
