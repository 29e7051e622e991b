//! What the cluster keeps of each thing it knows. Persisted and sent: fields never change.

use crate::{Epoch, NodeId, ReplicaId, TenantId};
use rkyv::{Archive, Deserialize, Serialize};

/// A node that belongs to the cluster. Whoever holds the key of `spki` is this node; nobody else is.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct MemberRecord {
    pub node: NodeId,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER).
    pub spki: [u8; 32],
    pub role: Role,
    /// Where other nodes reach it, `address:port`.
    pub quic: String,
    /// Where clients reach it, a URL.
    pub http: String,
    /// The highest feature level its program understands.
    pub level: u32,
    pub joined_at_secs: u64,
}

/// What a member may become.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Votes where it is needed to; learns otherwise.
    Voter,
    /// Learns, and never votes.
    Worker,
}

impl Role {
    pub const ALL: [Role; 2] = [Role::Voter, Role::Worker];

    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Role::Voter => "voter",
            Role::Worker => "worker",
        }
    }
}

/// Lets one node join. Its secret is only ever held as a hash.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct TokenRecord {
    /// The public part.
    pub token: String,
    pub secret_hash: [u8; 32],
    pub role: Role,
    pub expires_at_secs: u64,
}

/// One running copy of a model.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ReplicaRecord {
    pub replica: ReplicaId,
    pub node: NodeId,
    pub model: String,
    /// The first epoch of the node's present run; it counts up from here by itself.
    pub epoch: Epoch,
}

/// A model the cluster serves.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ModelRecord {
    /// What clients say in `model`.
    pub name: String,
    /// What it was asked for as: a path, `hf:…`, `pypi:…`, a catalogue name.
    pub spec: String,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    pub bytes: u64,
    /// Seconds since 1970, for `GET /v1/models`.
    pub added_at_secs: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct TenantRecord {
    pub id: TenantId,
    pub name: String,
    /// Random; the root of the tenant's block hashes. Never leaves the cluster.
    pub salt: [u8; 32],
}

/// An API key as stored: its secret is only ever held as a hash.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct KeyRecord {
    /// The public part of the key, used for look-up and in logs.
    pub key_id: String,
    /// SHA-256 of the secret part (128 random bits or more, so a fast hash is right).
    pub secret_hash: [u8; 32],
    pub tenant: TenantId,
    pub created_at_secs: u64,
    /// What people call it.
    pub name: Option<String>,
}
