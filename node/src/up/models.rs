//! Which models a node serves, and the cluster's word on it.

use super::model::{self, PreparedModel};
use crate::config::Config;
use crate::config::high::Origin;
use crate::peers::entry::Entry;
use crate::raft::CommitError;
use crate::state::{NodeState, StateError};
use crate::store::Store;
use crate::store::spec::NamedSpec;
use anyhow::bail;
use coordinator::cluster_state::{Applied, FOUNDER};
use proto::cluster::{ClusterCommand, ModelRecord, NodeModels, ReplicaRecord};
use std::time::Duration;
use tokio::time::sleep;

const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a node is to serve.
pub enum Models {
    /// Somebody asked for these: what cannot be had is an error.
    Asked(Vec<NamedSpec>),
    /// What the cluster serves, as far as this node can have it.
    Shared(Vec<NamedSpec>),
}

/// A node that was told nothing shares the load of its cluster.
pub fn of_node(config: &Config, entry: &Entry) -> Models {
    let is_told = config.models.origin != Origin::Default || entry.state.node() == FOUNDER;
    if is_told {
        return Models::Asked(config.models.value.clone());
    }
    let applied = entry.state.applied();
    let named = |model: &ModelRecord| format!("{}={}", model.name, model.spec).parse().ok();
    let shared: Vec<NamedSpec> = applied.models().filter_map(named).collect();
    match shared.is_empty() {
        // The only member of a cluster that was restored.
        true if applied.members().count() == 1 => Models::Asked(config.models.value.clone()),
        true | false => Models::Shared(shared),
    }
}

impl Models {
    pub fn prepare(&self, config: &Config, store: &Store) -> anyhow::Result<Vec<PreparedModel>> {
        match self {
            Models::Asked(models) => model::prepare_all(models, config, store),
            Models::Shared(models) => {
                let can_have = |named: &&NamedSpec| match store.take(&named.spec, crate::store::Check::Length)
                {
                    Ok(_) => true,
                    Err(error) => {
                        tracing::warn!(model = named.name, %error, "left to other nodes: it cannot be had here");
                        false
                    }
                };
                let here: Vec<NamedSpec> = models.iter().filter(can_have).cloned().collect();
                model::prepare_all(&here, config, store)
            }
        }
    }
}

/// Says what this node serves from now on, and learns by which names its replicas go. Waits for as long as the cluster
/// cannot agree: a node that comes back while others are still down has to.
pub async fn serve(state: &NodeState, models: Vec<ModelRecord>) -> anyhow::Result<Vec<ReplicaRecord>> {
    let node = state.node();
    loop {
        let serves = NodeModels {
            node,
            models: models.clone(),
        };
        match state.commit(ClusterCommand::ServeModels(Box::new(serves))).await {
            Ok(Applied::Replicas(records)) => return Ok(records),
            Ok(other) => bail!("the cluster answered {other:?} to what this node serves: please report it"),
            Err(StateError::Commit(
                error @ (CommitError::NoLeader | CommitError::Unknown(_) | CommitError::Away(_)),
            )) => tracing::warn!(%error, "waiting for the cluster"),
            Err(error @ StateError::Rejected(_)) => return Err(error.into()),
        }
        sleep(ASK_AGAIN).await;
    }
}
