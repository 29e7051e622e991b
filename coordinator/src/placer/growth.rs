//! Which cache becomes larger when nothing else is to be done: pure.
//!
//! Caches shrink for newcomers. When those leave, what was taken is given back by the rule of a first placement, but only
//! where it is worth that the replica begins anew.

use super::choice::{Table, layers};
use super::layout::{Room, Sizes};
use super::sight::Sight;
use super::view::View;
use proto::cluster::{Deployment, Placement, StagePlace};
use std::cmp::Reverse;

/// A larger cache costs every stream of the replica a pause, so it has to be so many times as large at least.
const WORTH_FACTOR: u32 = 2;

/// The placement that gains most, grown. `None`: there is none that may grow now and would gain enough.
pub fn growth(view: &View, sight: &Sight) -> Option<Placement> {
    let table = Table::new(view, sight);
    let grown = view.placements.iter().filter_map(|before| {
        let after = table.grown(before)?;
        let gain = u64::from(after.blocks) * 1000 / u64::from(before.blocks.max(1));
        Some((gain, Reverse(before.replica), after))
    });
    let most = grown.max_by_key(|(gain, replica, _)| (*gain, *replica));
    most.map(|(_, _, after)| after)
}

impl Table<'_> {
    fn grown(&self, placement: &Placement) -> Option<Placement> {
        let deployment = self.view.deployment(&placement.model)?;
        if !self.is_quiet_around(deployment, placement) {
            return None;
        }
        let step_tokens_max = placement.step_tokens_max;
        let free = |stage: &StagePlace| {
            let profile = self.usable.get(&stage.node)?;
            Some(self.view.free_bytes(profile, placement.replica))
        };
        let free: Option<Vec<u64>> = placement.stages.iter().map(free).collect();
        let parts = placement.stages.iter().zip(free?);
        let sizes = |stage: &StagePlace| Sizes::new(&deployment.shape, stage.ranks);
        let affordable = parts
            .clone()
            .map(|(stage, free)| sizes(stage).blocks_within(&layers(stage), free, step_tokens_max));
        let blocks = affordable.min()?;
        if blocks < placement.blocks.saturating_mul(WORTH_FACTOR) {
            return None;
        }
        let room = Room {
            blocks,
            step_tokens_max,
        };
        let stage = |(stage, free): (&StagePlace, u64)| {
            let memory_bytes = sizes(stage).memory_bytes(&layers(stage), room);
            (memory_bytes <= free).then_some(StagePlace {
                memory_bytes,
                ..*stage
            })
        };
        Some(Placement {
            stages: parts.map(stage).collect::<Option<_>>()?,
            blocks,
            ..placement.clone()
        })
    }

    /// Does every replica of the model serve, as many as there are to be, and everything that is placed on its nodes?
    pub(super) fn is_quiet_around(&self, deployment: &Deployment, placement: &Placement) -> bool {
        let of_model = || self.view.placements_of(&placement.model);
        let is_beside = |other: &&Placement| {
            let mut nodes = other.stages.iter().map(|stage| stage.node);
            nodes.any(|node| placement.stages.iter().any(|stage| stage.node == node))
        };
        let is_well = |other: &Placement| self.trouble(other).is_none() && self.serves(other);
        of_model().count() == deployment.replicas as usize
            && of_model().all(is_well)
            && self
                .view
                .placements
                .iter()
                .filter(is_beside)
                .all(|other| self.serves(other))
    }
}
