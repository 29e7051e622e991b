//! The state of the cluster as it is written down: in snapshots and backups.

use super::outcome::Outcome;
use super::placement::{Deployment, NodeProfile, Placement};
use super::record::{KeyRecord, MemberRecord, ModelRecord, ReplicaRecord, TenantRecord, TokenRecord};
use crate::NodeId;
use rkyv::{Archive, Deserialize, Serialize};

/// A program reads the versions it knows and writes the highest that the committed feature level allows.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum ClusterImage {
    V1(Box<ImageV1>),
    /// From feature level 2 on.
    V2(Box<ImageV2>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct ImageV1 {
    /// 0: not founded yet.
    pub cluster: u128,
    pub version: u64,
    pub level: u32,
    pub authorities: Vec<Vec<u8>>,
    pub members: Vec<MemberRecord>,
    /// The highest id that was ever given.
    pub node_max: NodeId,
    pub tokens: Vec<TokenRecord>,
    pub drained: Vec<NodeId>,
    pub models: Vec<ModelRecord>,
    pub replicas: Vec<ReplicaRecord>,
    pub replica_next: u32,
    pub tenants: Vec<TenantRecord>,
    pub tenant_next: u32,
    pub keys: Vec<KeyRecord>,
    /// What became of the latest proposals, the oldest first.
    pub recent: Vec<(u128, Outcome)>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct ImageV2 {
    pub first: ImageV1,
    pub deployments: Vec<Deployment>,
    pub profiles: Vec<NodeProfile>,
    /// Each has its replica among those of the first part.
    pub placements: Vec<Placement>,
    /// As in [`super::AuthoritiesStep::after`]; 0: none was taken yet.
    pub authorities_at: u64,
}
