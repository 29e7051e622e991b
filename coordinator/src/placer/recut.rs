//! Which replica's layers are cut anew between its nodes: pure.
//!
//! Layers are cut by rates that each node measured of itself when it came. What its stages then compute tells how fast it is
//! beside the others, with all that runs on it; where the cut does not fit that, the slowest stage holds up all others.

use super::choice::Table;
use super::layout::{Device, cut_again};
use super::sight::Sight;
use super::view::View;
use proto::cluster::{Placement, StagePlace};
use proto::{ReplicaId, Span};

pub enum Recut {
    /// Not while something around it does not serve.
    Later,
    /// It is cut well enough.
    Stays,
    Cut(Placement),
}

/// `computed`: how long each stage of the replica has computed for the same plans.
pub fn recut(view: &View, sight: &Sight, replica: ReplicaId, computed: &[Span]) -> Recut {
    let table = Table::new(view, sight);
    let there = view.placement(replica);
    let deployed = there.and_then(|placement| Some((placement, view.deployment(&placement.model)?)));
    let Some((placement, deployment)) = deployed else {
        return Recut::Later;
    };
    // What was heard of may have been another cut.
    let is_of_this = computed.len() == placement.stages.len();
    if !is_of_this || !table.is_quiet_around(deployment, placement) {
        return Recut::Later;
    }
    let device = |stage: &StagePlace| table.device_of(stage.node, replica);
    let Some(devices) = placement
        .stages
        .iter()
        .map(device)
        .collect::<Option<Vec<Device>>>()
    else {
        return Recut::Later;
    };
    match cut_again(&deployment.shape, &devices, placement, computed) {
        None => Recut::Stays,
        Some(placement) => Recut::Cut(placement),
    }
}
