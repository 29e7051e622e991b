//! The cluster's word on what a node serves by its own choice: it learns of the models, and names the replicas.

use crate::raft::{CommitError, propose};
use crate::state::{NodeState, StateError};
use anyhow::bail;
use coordinator::cluster_state::Applied;
use proto::cluster::{ClusterCommand, ModelRecord, NodeModels, Proposal, ReplicaRecord};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const ASK_AGAIN: Duration = Duration::from_millis(500);

/// One proposal, however often it is made.
pub struct Naming {
    state: Arc<NodeState>,
    proposal: Proposal,
}

impl Naming {
    /// From now on the node serves these, and no others.
    pub fn new(state: Arc<NodeState>, models: Vec<ModelRecord>) -> Naming {
        let node = state.node();
        let serves = NodeModels { node, models };
        Naming {
            proposal: propose(ClusterCommand::ServeModels(Box::new(serves))),
            state,
        }
    }

    /// The replicas, in the order of the models. `None`: the cluster has not agreed within some seconds.
    pub async fn ask(&self) -> anyhow::Result<Option<Vec<ReplicaRecord>>> {
        match self.state.commit_once(self.proposal.clone()).await {
            Ok(Applied::Replicas(records)) => Ok(Some(records)),
            Ok(other) => bail!("the cluster answered {other:?} to what this node serves: please report it"),
            Err(StateError::Commit(
                error @ (CommitError::NoLeader | CommitError::Unknown(_) | CommitError::Away(_)),
            )) => {
                tracing::debug!(%error, "the cluster is told later what this node serves");
                Ok(None)
            }
            Err(error @ StateError::Rejected(_)) => Err(error.into()),
        }
    }

    /// The same, for as long as it takes.
    pub async fn wait(&self) -> anyhow::Result<Vec<ReplicaRecord>> {
        loop {
            if let Some(records) = self.ask().await? {
                return Ok(records);
            }
            sleep(ASK_AGAIN).await;
        }
    }
}
