//! The commands of the log.

use super::placement::{Deployment, NodeProfile, Placement};
use super::record::{KeyRecord, ModelRecord, TokenRecord};
use crate::{NodeId, ReplicaId, TenantId};
use rkyv::{Archive, Deserialize, Serialize};

/// One committed change of shape: never a request, never a token.
///
/// Persisted and sent, so what is here stays: a variant is only ever added at the end, together with a higher
/// [`ClusterCommand::level`], and a struct in a box never changes. All variants are boxed, so that the size of an
/// archived command, by which rkyv finds its root, is the same for ever.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum ClusterCommand {
    /// The first command of every cluster.
    Found(Box<Founding>),
    AddToken(Box<TokenRecord>),
    RevokeToken(Box<TokenIs>),
    /// Uses up a token. The new node's id is the index of this entry in the log.
    Join(Box<NewMember>),
    RemoveMember(Box<MemberIs>),
    /// A member says where it is now and what it understands.
    MoveMember(Box<MemberAt>),
    /// All that a node serves from now on.
    ServeModels(Box<NodeModels>),
    Drain(Box<Drain>),
    Resume(Box<Resume>),
    AddTenant(Box<NewTenant>),
    /// Only a tenant without keys can go.
    RemoveTenant(Box<TenantIs>),
    AddKey(Box<KeyRecord>),
    RevokeKey(Box<KeyId>),
    /// Whose signatures on certificates count: one authority, or two while one takes over from the other. Below feature
    /// level 2.
    SetAuthorities(Box<Authorities>),
    /// From now on commands up to this level may be logged.
    SetFeatureLevel(Box<FeatureLevel>),
    /// A member says what it can do for models that are placed on it.
    Profile(Box<NodeProfile>),
    /// From now on the cluster serves this model, or another number of copies of it.
    Deploy(Box<Deployment>),
    /// Its placements go as well.
    Undeploy(Box<Undeploy>),
    /// A new replica of a deployed model, or another place for one that was placed before.
    Place(Box<Placement>),
    Unplace(Box<Unplace>),
    /// What takes the place of [`ClusterCommand::SetAuthorities`] from feature level 2 on.
    StepAuthorities(Box<AuthoritiesStep>),
}

/// A command as it is logged. However often it is proposed, because an answer was lost, it counts once.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Random, drawn by who wants the change.
    pub id: u128,
    pub command: ClusterCommand,
}

/// From this feature level on a cluster places models, and its nodes give files to each other.
pub const PLACING_LEVEL: u32 = 2;

impl ClusterCommand {
    /// A cluster logs a command only when its committed feature level is at least this, so that no member meets one
    /// that it does not know.
    pub fn level(&self) -> u32 {
        match self {
            ClusterCommand::Found(_)
            | ClusterCommand::AddToken(_)
            | ClusterCommand::RevokeToken(_)
            | ClusterCommand::Join(_)
            | ClusterCommand::RemoveMember(_)
            | ClusterCommand::MoveMember(_)
            | ClusterCommand::ServeModels(_)
            | ClusterCommand::Drain(_)
            | ClusterCommand::Resume(_)
            | ClusterCommand::AddTenant(_)
            | ClusterCommand::RemoveTenant(_)
            | ClusterCommand::AddKey(_)
            | ClusterCommand::RevokeKey(_)
            | ClusterCommand::SetAuthorities(_)
            | ClusterCommand::SetFeatureLevel(_) => 1,
            ClusterCommand::Profile(_)
            | ClusterCommand::Deploy(_)
            | ClusterCommand::Undeploy(_)
            | ClusterCommand::Place(_)
            | ClusterCommand::Unplace(_)
            | ClusterCommand::StepAuthorities(_) => PLACING_LEVEL,
        }
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    /// Random; tells one cluster from another.
    pub cluster: u128,
    /// The founder's public key, as in [`super::MemberRecord::spki`].
    pub spki: [u8; 32],
    pub quic: String,
    pub http: String,
    pub level: u32,
    pub at_secs: u64,
    /// DER certificate of the authority.
    pub authority: Vec<u8>,
    /// Of the default tenant.
    pub salt: [u8; 32],
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct TokenIs {
    pub token: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct NewMember {
    pub token: String,
    /// SHA-256 of the secret that the joiner showed.
    pub secret_hash: [u8; 32],
    pub spki: [u8; 32],
    pub quic: String,
    pub http: String,
    pub level: u32,
    /// The clock of the member that took the request in.
    pub at_secs: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct MemberIs {
    pub node: NodeId,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct MemberAt {
    pub node: NodeId,
    pub quic: String,
    pub http: String,
    pub level: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct NodeModels {
    pub node: NodeId,
    pub models: Vec<ModelRecord>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Drain {
    pub node: NodeId,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Resume {
    pub node: NodeId,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct NewTenant {
    pub name: String,
    pub salt: [u8; 32],
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct TenantIs {
    pub tenant: TenantId,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct KeyId {
    pub key_id: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Authorities {
    /// DER certificates, the one that signs first.
    pub certificates: Vec<Vec<u8>>,
}

/// One step of a rotation, by who has looked before it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct AuthoritiesStep {
    /// How many changes the log held after the last step: none has come since whoever proposes this has looked.
    pub after: u64,
    /// As in [`Authorities`].
    pub certificates: Vec<Vec<u8>>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct FeatureLevel {
    pub level: u32,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Undeploy {
    /// Its name.
    pub model: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Unplace {
    pub replica: ReplicaId,
}
