//! What a placer knows of the cluster.

use crate::cluster_state::ClusterState;
use proto::cluster::{Deployment, NodeProfile, Placement};
use proto::{NodeId, ReplicaId};
use std::collections::BTreeSet;

/// What placement depends on, as of one place in the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    pub deployments: Vec<Deployment>,
    /// Only members have one.
    pub profiles: Vec<NodeProfile>,
    pub placements: Vec<Placement>,
    pub drained: BTreeSet<NodeId>,
}

impl View {
    pub fn of(state: &ClusterState) -> View {
        let nodes = state.members().map(|member| member.node);
        View {
            deployments: state.deployments().cloned().collect(),
            profiles: state.profiles().cloned().collect(),
            placements: state.placements().cloned().collect(),
            drained: nodes.filter(|node| state.is_drained(*node)).collect(),
        }
    }

    /// As if no copy of this model were placed.
    pub fn without(mut self, model: &str) -> View {
        self.placements.retain(|placement| placement.model != model);
        self
    }

    pub(super) fn deployment(&self, name: &str) -> Option<&Deployment> {
        self.deployments
            .iter()
            .find(|deployment| deployment.model.name == name)
    }

    pub(super) fn placement(&self, replica: ReplicaId) -> Option<&Placement> {
        self.placements
            .iter()
            .find(|placement| placement.replica == replica)
    }

    pub(super) fn placements_of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Placement> {
        self.placements
            .iter()
            .filter(move |placement| placement.model == model)
    }

    /// What the node could still carry if this replica were not there.
    pub(super) fn free_bytes(&self, profile: &NodeProfile, replica: ReplicaId) -> u64 {
        let others = self
            .placements
            .iter()
            .filter(|placement| placement.replica != replica);
        let stages = others.flat_map(|placement| &placement.stages);
        let taken = stages
            .filter(|stage| stage.node == profile.node)
            .map(|stage| stage.memory_bytes)
            .fold(0, u64::saturating_add);
        profile.memory_bytes.saturating_sub(taken)
    }
}
