//! What would come of it, thought through as the placer would do it: pure.

use super::choice::{Change, Choice, next, rehearse};
use super::layout::{Layout, NoFit};
use super::sight::Sight;
use super::view::View;
use proto::cluster::{Deployment, Placement};
use proto::{NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// More changes than any rehearsal takes: each replica moves once, and each cache shrinks once for each that comes.
const CHANGES_MAX: usize = 1000;

/// Where so many more replicas of this model would go, one after the other; it need not be deployed yet. An error is why the
/// rest has no place.
pub fn rehearse_copies(
    view: &View,
    lost: &BTreeSet<NodeId>,
    deployment: &Deployment,
    copies: usize,
) -> Vec<Result<Layout, NoFit>> {
    let mut view = view.clone();
    let mut rehearsed = Vec::new();
    for _ in 0..copies {
        let layout = rehearse(&view, lost, deployment);
        let has_place = layout.is_ok();
        rehearsed.push(layout);
        if !has_place {
            break;
        }
        view.place_one_more(lost, deployment);
    }
    rehearsed
}

impl View {
    fn place_one_more(&mut self, lost: &BTreeSet<NodeId>, deployment: &Deployment) {
        let name = &deployment.model.name;
        let placed = self.placements_of(name).count();
        self.deployments.retain(|known| known.model.name != *name);
        self.deployments.push(Deployment {
            replicas: placed as u32 + 1,
            ..deployment.clone()
        });
        self.go_on(lost, |view| view.placements_of(name).count() > placed);
    }

    /// As the placer would, until nothing can be done, or enough is. Gives why the rest has to wait, by model, where that is
    /// told.
    pub(super) fn go_on(
        &mut self,
        lost: &BTreeSet<NodeId>,
        is_enough: impl Fn(&View) -> bool,
    ) -> BTreeMap<String, String> {
        for _ in 0..CHANGES_MAX {
            let serving = self.placements.iter().map(|placement| placement.replica);
            let sight = Sight {
                lost: lost.clone(),
                serving: serving.collect(),
            };
            match next(self, &sight) {
                Choice::Change(change) => self.take(change),
                Choice::Rest(reasons) => return reasons,
            }
            if is_enough(self) {
                break;
            }
        }
        BTreeMap::new()
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
