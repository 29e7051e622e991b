//! `cluster drain`, and what it comes to.

use super::ControlAnswer;
use super::report::{DrainReport, StayingModel};
use crate::placement::outlook::{self, OutlookBoard};
use crate::state::NodeState;
use coordinator::cluster_state::ClusterState;
use coordinator::placer::{View, rehearse_drain};
use proto::NodeId;
use proto::cluster::{ClusterCommand, Drain, ReplicaRecord, Resume};
use proto::peer::Outlook;
use std::collections::BTreeSet;

/// What the node serves by its own choice is not used any more, and what was placed there goes elsewhere where it can.
pub async fn drain(state: &NodeState, own: &OutlookBoard, node: NodeId) -> ControlAnswer<DrainReport> {
    let command = ClusterCommand::Drain(Box::new(Drain { node }));
    state.commit(command).await.map_err(|error| error.to_string())?;
    // It is drained, whether or not it can be said what comes of it.
    let outlook = outlook::ask(state, own).await.unwrap_or_default();
    Ok(report(&state.applied(), &outlook, node))
}

pub async fn resume(state: &NodeState, node: NodeId) -> ControlAnswer<()> {
    let command = ClusterCommand::Resume(Box::new(Resume { node }));
    state.commit(command).await.map_err(|error| error.to_string())?;
    Ok(())
}

/// Of a node that is drained.
fn report(state: &ClusterState, outlook: &Outlook, node: NodeId) -> DrainReport {
    let lost: BTreeSet<NodeId> = outlook.lost.iter().copied().collect();
    let staying = rehearse_drain(&View::of(state), &lost, node).into_iter();
    let stays: Vec<StayingModel> = staying
        .map(|staying| StayingModel {
            model: staying.model,
            reason: staying.reason,
        })
        .collect();
    let placed = state.placements_of(node).map(|placement| placement.model.clone());
    let placed: BTreeSet<String> = placed.collect();
    let moves = placed
        .into_iter()
        .filter(|model| stays.iter().all(|staying| staying.model != *model));
    DrainReport {
        moves: moves.collect(),
        stays,
        unserved: unserved(state, node),
    }
}

fn unserved(state: &ClusterState, node: NodeId) -> Vec<String> {
    let is_offered = |replica: &ReplicaRecord| state.is_offered(replica.replica, replica.node);
    let offered: BTreeSet<&String> = state
        .replicas()
        .filter(|replica| is_offered(replica))
        .map(|replica| &replica.model)
        .collect();
    let here = state.replicas().filter(|replica| replica.node == node);
    let models: BTreeSet<&String> = here.map(|replica| &replica.model).collect();
    models
        .difference(&offered)
        .map(|model| (*model).clone())
        .collect()
}
