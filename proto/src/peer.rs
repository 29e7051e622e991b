//! What nodes of one cluster say to each other.
//!
//! Variants hold a box, so that one more at the end changes no size.

use crate::{Epoch, ReplicaId};
use rkyv::{Archive, Deserialize, Serialize};

/// A question; the answer comes on the same stream.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum PeerRequest {
    /// Whether the other is there; its nonce comes back.
    Ping(Box<Nonce>),
    /// A message of the agreement's protocol, as it is written by who carries it out.
    Raft(Box<Opaque>),
    /// A change that the leader is to have agreed on.
    Command(Box<Opaque>),
    /// Up to where somebody has to have applied the log for a read of now to be linearizable.
    ReadIndex(Box<ReadIndex>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum PeerAnswer {
    Pong(Box<Nonce>),
    Raft(Box<Opaque>),
    Command(Box<Opaque>),
    ReadIndex(Box<LogIndex>),
    /// For people: what is wrong, and what to do.
    Refused(Box<Refusal>),
}

/// What a stream that stays open is for. It is the first frame of the one who opens it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Hello {
    /// `ToEngine` one way, `FromEngine` the other.
    Engine(Box<Replica>),
    /// Activations from one stage to the next.
    Stage(Box<Stage>),
    /// The bytes of a file or of KV cache.
    Blob(Box<Blob>),
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonce {
    pub nonce: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Opaque {
    pub bytes: Vec<u8>,
}

/// No fields yet; a struct, so that it can get some.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadIndex {}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogIndex {
    pub index: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub reason: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replica {
    pub replica: ReplicaId,
    pub epoch: Epoch,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage {
    pub replica: ReplicaId,
    pub epoch: Epoch,
    /// Of the one who sends.
    pub stage: u16,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Blob {
    pub name: String,
}
