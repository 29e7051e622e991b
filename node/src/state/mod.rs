//! What the cluster has agreed on, as this node sees it, and the way to change it.

#[cfg(test)]
mod founded;
pub mod keys;
pub mod tenants;

#[cfg(test)]
pub use founded::founded;

use crate::peers::PeerLinks;
use crate::raft::{AppliedState, CommitError, Member, propose};
use coordinator::cluster_state::{Applied, ClusterState, Rejected};
use proto::cluster::{ClusterCommand, Proposal};
use proto::{NodeId, TenantId};
use std::sync::RwLockReadGuard;

#[derive(thiserror::Error, Debug)]
pub enum StateError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// Shared by everything in the node that asks who may and what is served.
pub struct NodeState {
    pub member: Member<PeerLinks>,
}

impl NodeState {
    pub fn node(&self) -> NodeId {
        self.member.id
    }

    /// Agreed on, durable on a quorum and visible here when it returns. Waits some seconds for a leader where there is
    /// none.
    pub async fn commit(&self, command: ClusterCommand) -> Result<Applied, StateError> {
        self.commit_once(propose(command)).await
    }

    /// The same; what is tried again counts once.
    pub async fn commit_once(&self, proposal: Proposal) -> Result<Applied, StateError> {
        Ok(self.member.commit(proposal).await?.outcome?)
    }

    /// What was acknowledged on any node before this was called is in [`NodeState::applied`] when it returns.
    pub async fn linearize(&self) -> Result<(), StateError> {
        Ok(self.member.linearize().await?)
    }

    /// As far as this node has heard: mostly some milliseconds old, and as old as the loss of the quorum where it is
    /// lost.
    pub fn applied(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.member.applied.read()
    }

    /// `None`: this opens nothing, as far as this node has heard, or it may have been revoked.
    pub fn tenant_of(&self, key: &str) -> Option<TenantId> {
        match self.member.applied.may_be_revoked(keys::id_of(key)) {
            true => None,
            false => keys::tenant_of(key, &self.applied()),
        }
    }

    pub fn applied_state(&self) -> &AppliedState {
        &self.member.applied
    }
}
