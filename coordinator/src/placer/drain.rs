//! What draining a node comes to, before or after it has begun: pure.

use super::choice::{Change, Choice, next};
use super::sight::Sight;
use super::view::View;
use proto::cluster::Placement;
use proto::{NodeId, ReplicaId};
use std::collections::BTreeSet;

/// More changes than any drain takes: each replica moves once, and each cache shrinks once for each that comes.
const CHANGES_MAX: usize = 1000;

/// A model that a drained node goes on serving.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staying {
    pub model: String,
    /// Why there is no other place for it.
    pub reason: String,
}

/// Of the models that are placed on this node, those that stay there when it is drained, since there is no other place for
/// them now. All that happens until then is thought through as the placer would do it.
pub fn rehearse_drain(view: &View, lost: &BTreeSet<NodeId>, node: NodeId) -> Vec<Staying> {
    let mut view = view.clone();
    view.drained.insert(node);
    for _ in 0..CHANGES_MAX {
        let sight = Sight {
            lost: lost.clone(),
            serving: view
                .placements
                .iter()
                .map(|placement| placement.replica)
                .collect(),
        };
        let reasons = match next(&view, &sight) {
            Choice::Change(change) => {
                view.take(change);
                continue;
            }
            Choice::Rest(reasons) => reasons,
        };
        let models: BTreeSet<&String> = view
            .placements_on(node)
            .map(|placement| &placement.model)
            .collect();
        let staying = |(model, reason): (String, String)| Staying { model, reason };
        let reasons = reasons.into_iter().filter(|(model, _)| models.contains(model));
        return reasons.map(staying).collect();
    }
    Vec::new()
}

impl View {
    fn placements_on(&self, node: NodeId) -> impl Iterator<Item = &Placement> {
        let is_on = move |placement: &&Placement| placement.stages.iter().any(|stage| stage.node == node);
        self.placements.iter().filter(is_on)
    }

    /// As if it had been agreed on.
    fn take(&mut self, change: Change) {
        match change {
            Change::Place(placement) => self.place(placement),
            Change::Unplace(replica) => self.placements.retain(|placement| placement.replica != replica),
        }
    }

    fn place(&mut self, placement: Placement) {
        let ids = self.placements.iter().map(|placement| placement.replica.0);
        let next = ReplicaId(ids.max().unwrap_or(0) + 1);
        match self
            .placements
            .iter_mut()
            .find(|known| known.replica == placement.replica)
        {
            Some(known) => *known = placement,
            None => self.placements.push(Placement {
                replica: next,
                ..placement
            }),
        }
    }
}
