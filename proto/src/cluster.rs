//! What the cluster agrees on: the commands its log holds. Persisted, so variants are only ever added at the end.

use crate::TenantId;
use rkyv::{Archive, Deserialize, Serialize};

/// One committed change of shape: never a request, never a token.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum ClusterCommand {
    AddModel(ModelRecord),
    RemoveModel {
        name: String,
    },
    AddTenant(TenantRecord),
    AddKey(KeyRecord),
    RevokeKey {
        key_id: String,
    },
    /// Only a tenant without keys can go.
    RemoveTenant {
        id: TenantId,
    },
    /// What people call a key; a second name replaces the first.
    NameKey {
        key_id: String,
        name: String,
    },
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
}
