//! What became of a command.

use super::record::ReplicaRecord;
use crate::{NodeId, ReplicaId, TenantId};
use rkyv::{Archive, Deserialize, Serialize};

/// What became of a command where it stands in the log.
pub type Outcome = Result<Applied, Rejected>;

/// What a command that counts has made.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    Done,
    Member(NodeId),
    Tenant(TenantId),
    /// In the order of the models.
    Replicas(Vec<ReplicaRecord>),
}

/// Why a command changes nothing. Never more than 16 bytes as archived, since outcomes lie in images that stay readable:
/// what needs more goes into a box.
#[derive(Archive, Serialize, Deserialize, thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Rejected {
    #[error("this cluster has been founded already")]
    Founded,
    #[error(
        "this command needs feature level {needed}, and the cluster is at {level}: upgrade every node first"
    )]
    LevelTooLow { needed: u32, level: u32 },
    #[error(
        "feature level {level} cannot be committed: a member understands less, or it is not above the present one"
    )]
    LevelUnfit { level: u32 },
    #[error("there is no node {node} in this cluster; it may have been removed")]
    MemberUnknown { node: NodeId },
    #[error(
        "no other node can vote in the place of node {node}: let another one in first, or wait until it has caught up"
    )]
    LastVoter { node: NodeId },
    #[error(
        "the join token is unknown, was used already, or has expired: make another one with `cluster token create`"
    )]
    TokenUnfit,
    #[error("a token with id `{token}` exists already; draw another one")]
    TokenExists { token: String },
    #[error(
        "the model `{name}` is another file on other nodes of this cluster: serve this one under another name, as in \
         --model NAME=FILE"
    )]
    ModelDiffers { name: String },
    #[error("a tenant named `{name}` exists already; choose another name")]
    TenantExists { name: String },
    #[error("there is no tenant {id}; add the tenant before its keys")]
    TenantUnknown { id: TenantId },
    #[error("tenant {id} still has {keys} API key(s); revoke them first")]
    TenantHasKeys { id: TenantId, keys: u64 },
    #[error("a key with id `{key_id}` exists already; draw another one")]
    KeyExists { key_id: String },
    #[error("there is no key with id `{key_id}`; it may have been revoked already")]
    KeyUnknown { key_id: String },
    #[error("a cluster trusts one authority, or two while one takes over; {count} were named")]
    AuthoritiesUnfit { count: u64 },
    #[error("the model `{name}` is not deployed to this cluster; `cluster deploy` it first")]
    DeploymentUnknown { name: String },
    #[error(
        "what was said of the model `{name}` does not add up: it must have between 1 and 1024 layers with a size each, \
         blocks of at least one token, and a context of at least one token"
    )]
    ShapeUnfit { name: String },
    #[error(
        "node {node} has not said yet what it can carry; it does so when it has started and measured itself"
    )]
    ProfileUnknown { node: NodeId },
    #[error(
        "node {node} is drained and takes nothing new; let it take part again with `cluster drain {node} --resume`, or choose another one"
    )]
    NodeDrained { node: NodeId },
    #[error(
        "the stages for the model `{name}` must cover all its layers in order, each once and on a node of its own, with \
         at least one thread, one rank and one block of cache"
    )]
    StagesUnfit { name: String },
    #[error(
        "node {} would have to hold {} MiB of placed models, and its budget is {} MiB",
        .0.node, .0.needed_bytes.div_ceil(1 << 20), .0.budget_bytes >> 20
    )]
    OverBudget(Box<OverBudget>),
    #[error(
        "replica {replica} is none that the cluster has placed for this model; it may have been taken away"
    )]
    PlacementUnknown { replica: ReplicaId },
    #[error(
        "the cluster's authorities were changed by somebody else meanwhile, and this would leave nodes out: repeat the command, \
         which looks anew"
    )]
    AuthoritiesLeap,
    #[error(
        "this is for nodes that may vote, and node {node} is a worker: run the command on one of them (`cluster node list` \
         shows which)"
    )]
    ForVoters { node: NodeId },
    #[error("node {node} may say this of itself alone")]
    ForItself { node: NodeId },
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct OverBudget {
    pub node: NodeId,
    pub needed_bytes: u64,
    pub budget_bytes: u64,
}
