//! The next change of what is placed, from what is there: pure.
//!
//! First what is too many goes, then what has lost a node moves, then what is on a drained one, and at last what is missing
//! is placed. A replica whose nodes are well stays on them, even when better ones come up: moving it costs every stream on it a
//! pause. (Its layers may be cut anew between them: [`super::recut`].) One on a drained node serves until another serves in its place, and for as long as there is no other
//! place. Where room is short, caches of others are made smaller, down to the least they work with.

use super::layout::{Device, Layout, NoFit, Room, Sizes, Wishes, fit};
use super::sight::Sight;
use super::view::View;
use proto::cluster::{ClusterCommand, Deployment, NodeProfile, Placement, StagePlace, Unplace};
use proto::{NodeId, ReplicaId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    Change(Change),
    /// Nothing can be done; why the rest has to wait, by model.
    Rest(BTreeMap<String, String>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Place(Placement),
    Unplace(ReplicaId),
}

impl Change {
    pub fn command(self) -> ClusterCommand {
        match self {
            Change::Place(placement) => ClusterCommand::Place(Box::new(placement)),
            Change::Unplace(replica) => ClusterCommand::Unplace(Box::new(Unplace { replica })),
        }
    }
}

pub fn next(view: &View, sight: &Sight) -> Choice {
    let table = Table::new(view, sight);
    if let Some(replica) = table.too_many() {
        return Choice::Change(Change::Unplace(replica));
    }
    let mut obstacles = table.handovers();
    for need in table.needs() {
        match table.meet(&need) {
            Ok(placement) => return Choice::Change(Change::Place(placement)),
            Err(no_fit) => {
                let reason = need.words(&no_fit);
                let name = need.deployment.model.name.clone();
                obstacles.entry(name).or_insert(reason);
            }
        }
    }
    Choice::Rest(obstacles)
}

/// What would be done for one more replica of this model, which need not be deployed yet.
pub fn rehearse(view: &View, lost: &BTreeSet<NodeId>, deployment: &Deployment) -> Result<Layout, NoFit> {
    let sight = Sight {
        lost: lost.clone(),
        serving: BTreeSet::new(),
    };
    let table = Table::new(view, &sight);
    let (layout, caches) = table.find(deployment, ReplicaId(0), wishes(deployment))?;
    Ok(match caches {
        Caches::Kept => layout,
        Caches::Least => {
            layout.also("caches of other models on these nodes are made smaller for it".to_owned())
        }
    })
}

fn wishes(deployment: &Deployment) -> Wishes {
    Wishes {
        ranks: deployment.ranks,
    }
}

pub(super) struct Table<'a> {
    pub(super) view: &'a View,
    /// Of the nodes that may be placed on.
    pub(super) usable: BTreeMap<NodeId, &'a NodeProfile>,
    pub(super) sight: &'a Sight,
}

/// A replica that wants a place.
struct Need<'a> {
    deployment: &'a Deployment,
    cause: Cause<'a>,
}

enum Cause<'a> {
    /// So many replicas of it are there.
    Missing {
        placed: usize,
    },
    Troubled(&'a Placement, Trouble),
}

/// What is wrong with the place of a replica.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It runs no more.
    Lost(NodeId),
    /// It runs, and should not here.
    Drained(NodeId),
}

impl Trouble {
    /// How soon it goes where there are too many.
    fn weight(self) -> u32 {
        match self {
            Trouble::Lost(_) => 2,
            Trouble::Drained(_) => 1,
        }
    }
}

/// How much memory of a node counts as free.
#[derive(Clone, Copy)]
enum Caches {
    Kept,
    /// As if every cache on it were as small as can be.
    Least,
}

impl<'a> Table<'a> {
    pub(super) fn new(view: &'a View, sight: &'a Sight) -> Table<'a> {
        let is_usable = |node: &NodeId| !sight.lost.contains(node) && !view.drained.contains(node);
        let usable = view.profiles.iter().filter(|profile| is_usable(&profile.node));
        Table {
            view,
            usable: usable.map(|profile| (profile.node, profile)).collect(),
            sight,
        }
    }

    fn too_many(&self) -> Option<ReplicaId> {
        self.view.deployments.iter().find_map(|deployment| {
            let surplus = self.surplus(deployment)?;
            self.can_go(deployment, surplus).then_some(surplus.replica)
        })
    }

    /// The one that goes when there are too many: one that does not run, else one on a drained node, else the youngest.
    fn surplus(&self, deployment: &'a Deployment) -> Option<&'a Placement> {
        let placed: Vec<&Placement> = self.view.placements_of(&deployment.model.name).collect();
        if placed.len() <= deployment.replicas as usize {
            return None;
        }
        placed.into_iter().max_by_key(|placement| {
            let trouble = self.trouble(placement);
            (trouble.map_or(0, Trouble::weight), placement.replica)
        })
    }

    /// One on a drained node goes when the others serve without it.
    fn can_go(&self, deployment: &Deployment, placement: &Placement) -> bool {
        match self.trouble(placement) {
            None | Some(Trouble::Lost(_)) => true,
            Some(Trouble::Drained(_)) => {
                let others = self
                    .view
                    .placements_of(&deployment.model.name)
                    .filter(|other| other.replica != placement.replica && self.serves(other));
                others.count() >= deployment.replicas as usize
            }
        }
    }

    pub(super) fn serves(&self, placement: &Placement) -> bool {
        let is_lost = matches!(self.trouble(placement), Some(Trouble::Lost(_)));
        !is_lost && self.sight.serving.contains(&placement.replica)
    }

    /// Of replicas that stay on a drained node until others have come up: why, by model.
    fn handovers(&self) -> BTreeMap<String, String> {
        let words = |deployment: &'a Deployment| {
            let staying = self.surplus(deployment)?;
            let Some(Trouble::Drained(node)) = self.trouble(staying) else {
                return None;
            };
            let replica = staying.replica;
            let words = format!(
                "replica {replica} serves on node {node}, which is drained, until another one has come up in its place"
            );
            Some((deployment.model.name.clone(), words))
        };
        self.view.deployments.iter().filter_map(words).collect()
    }

    /// The most urgent first.
    fn needs(&self) -> Vec<Need<'a>> {
        let (mut lost, mut drained, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for deployment in &self.view.deployments {
            let placed = self.view.placements_of(&deployment.model.name).count();
            // Each of these stands in for one on a drained node.
            let mut substitutes = placed.saturating_sub(deployment.replicas as usize);
            for placement in self.view.placements_of(&deployment.model.name) {
                let Some(trouble) = self.trouble(placement) else {
                    continue;
                };
                let urgency = match trouble {
                    Trouble::Lost(_) => &mut lost,
                    Trouble::Drained(_) if substitutes > 0 => {
                        substitutes -= 1;
                        continue;
                    }
                    Trouble::Drained(_) => &mut drained,
                };
                let cause = Cause::Troubled(placement, trouble);
                urgency.push(Need { deployment, cause });
            }
            if placed < deployment.replicas as usize {
                let cause = Cause::Missing { placed };
                missing.push(Need { deployment, cause });
            }
        }
        lost.into_iter().chain(drained).chain(missing).collect()
    }

    /// `None`: all its nodes are well.
    pub(super) fn trouble(&self, placement: &Placement) -> Option<Trouble> {
        let nodes = || placement.stages.iter().map(|stage| stage.node);
        let is_known = |node: &NodeId| self.view.profiles.iter().any(|profile| profile.node == *node);
        let is_lost = |node: &NodeId| self.sight.lost.contains(node) || !is_known(node);
        let lost = nodes().find(is_lost).map(Trouble::Lost);
        lost.or_else(|| {
            nodes()
                .find(|node| self.view.drained.contains(node))
                .map(Trouble::Drained)
        })
    }

    /// A placement for it, or one of another replica that makes room. Rather than make others smaller, one that could stay
    /// until its substitute has come up goes before.
    fn meet(&self, need: &Need<'a>) -> Result<Placement, NoFit> {
        let (mut tight, mut no_fit) = (None, None);
        for replica in need.places() {
            match self.find(need.deployment, replica, need.wishes()) {
                Ok((layout, Caches::Kept)) => {
                    return Ok(need.placement(replica, &layout.stages, layout.room, &layout));
                }
                Ok((layout, Caches::Least)) => {
                    tight.get_or_insert((replica, layout));
                }
                Err(error) => no_fit = Some(error),
            }
        }
        match (tight, no_fit) {
            (Some((replica, layout)), _) => Ok(self.make_room(need, replica, &layout)),
            (None, no_fit) => Err(no_fit.expect("a need is tried to be met")),
        }
    }

    /// On nodes without another replica of it; or else anywhere; or else as if all caches were at their least.
    fn find(
        &self,
        deployment: &Deployment,
        replica: ReplicaId,
        wishes: Wishes,
    ) -> Result<(Layout, Caches), NoFit> {
        let others = || {
            self.view
                .placements_of(&deployment.model.name)
                .filter(|placement| placement.replica != replica)
        };
        let is_apart = |node: NodeId| {
            let mut stages = others().flat_map(|placement| &placement.stages);
            stages.all(|stage| stage.node != node)
        };
        let kept = self.devices(replica, Caches::Kept);
        let fresh: Vec<Device> = kept
            .iter()
            .filter(|device| is_apart(device.node))
            .cloned()
            .collect();
        for devices in [&fresh, &kept] {
            if let Ok(layout) = fit(&deployment.shape, devices, wishes) {
                return Ok((layout, Caches::Kept));
            }
        }
        let layout = fit(&deployment.shape, &self.devices(replica, Caches::Least), wishes)?;
        Ok((layout, Caches::Least))
    }

    fn devices(&self, replica: ReplicaId, caches: Caches) -> Vec<Device> {
        let device = |profile: &&NodeProfile| {
            let mut device = self.device(profile, replica);
            if let Caches::Least = caches {
                let spare_bytes = self.spare_bytes(profile.node, replica);
                device.memory_bytes = device.memory_bytes.saturating_add(spare_bytes);
            }
            device
        };
        self.usable.values().map(device).collect()
    }

    /// With what this replica has on it as free. `None`: nothing may be placed on it.
    pub(super) fn device_of(&self, node: NodeId, replica: ReplicaId) -> Option<Device> {
        let profile = self.usable.get(&node)?;
        Some(self.device(profile, replica))
    }

    fn device(&self, profile: &NodeProfile, replica: ReplicaId) -> Device {
        Device {
            node: profile.node,
            memory_bytes: self.view.free_bytes(profile, replica),
            threads: profile.threads,
            rates: profile.rates.clone(),
            links: profile.links.clone(),
        }
    }

    /// Cache on a node that others can do without.
    fn spare_bytes(&self, node: NodeId, replica: ReplicaId) -> u64 {
        self.shrinkable(node, replica)
            .map(|(_, bytes)| bytes)
            .fold(0, u64::saturating_add)
    }

    /// Those with more cache than the least on this node, with how much more. One that is in trouble is not among them: to
    /// place it where it is would be refused.
    fn shrinkable(&self, node: NodeId, replica: ReplicaId) -> impl Iterator<Item = (&'a Placement, u64)> {
        self.view
            .placements
            .iter()
            .filter(move |placement| placement.replica != replica && self.trouble(placement).is_none())
            .filter_map(move |placement| {
                let deployment = self.view.deployment(&placement.model)?;
                let stage = placement.stages.iter().find(|stage| stage.node == node)?;
                let sizes = Sizes::new(&deployment.shape, stage.ranks);
                let blocks = placement.blocks.saturating_sub(sizes.blocks_least());
                let bytes = sizes
                    .block_bytes(&layers(stage))
                    .saturating_mul(u64::from(blocks));
                (bytes > 0).then_some((placement, bytes.min(stage.memory_bytes)))
            })
    }

    /// The layout fits when caches are at their least: makes the first of those smaller that is in the way, or, when none is,
    /// takes the place.
    fn make_room(&self, need: &Need<'a>, replica: ReplicaId, layout: &Layout) -> Placement {
        let sizes = Sizes::new(&need.deployment.shape, need.wishes().ranks);
        let room = Room {
            blocks: sizes.blocks_least(),
            step_tokens_max: layout.room.step_tokens_max,
        };
        let least = |stage: &StagePlace| StagePlace {
            memory_bytes: sizes.memory_bytes(&layers(stage), room),
            ..*stage
        };
        let stages: Vec<StagePlace> = layout.stages.iter().map(least).collect();
        for stage in &stages {
            let profile = self.usable[&stage.node];
            let free_bytes = self.view.free_bytes(profile, replica);
            let lacking_bytes = stage.memory_bytes.saturating_sub(free_bytes);
            if lacking_bytes > 0 {
                let richest = self
                    .shrinkable(stage.node, replica)
                    .max_by_key(|(placement, bytes)| (*bytes, Reverse(placement.replica)));
                let (placement, _) = richest.expect("with the least of caches there is room");
                return self.shrunk(placement, stage.node, lacking_bytes);
            }
        }
        need.placement(replica, &stages, room, layout)
    }

    /// With so much less cache on this node, or as little as it can have.
    fn shrunk(&self, placement: &Placement, node: NodeId, bytes: u64) -> Placement {
        let deployment = self.view.deployment(&placement.model);
        let shape = &deployment.expect("only what is deployed is placed").shape;
        let sizes = |stage: &StagePlace| Sizes::new(shape, stage.ranks);
        let block_bytes = |stage: &StagePlace| sizes(stage).block_bytes(&layers(stage));
        let stage = placement.stages.iter().find(|stage| stage.node == node);
        let block_bytes_here = stage.map(block_bytes).unwrap_or(0).max(1);
        let spare = placement
            .blocks
            .saturating_sub(Sizes::new(shape, 1).blocks_least());
        let given = bytes.div_ceil(block_bytes_here).min(u64::from(spare));
        let room = Room {
            blocks: placement.blocks - given as u32,
            step_tokens_max: placement.step_tokens_max,
        };
        let smaller = |stage: &StagePlace| StagePlace {
            memory_bytes: sizes(stage).memory_bytes(&layers(stage), room),
            ..*stage
        };
        Placement {
            stages: placement.stages.iter().map(smaller).collect(),
            blocks: room.blocks,
            ..placement.clone()
        }
    }
}

impl Need<'_> {
    /// As which replica it may be placed, the best first; 0: a new one. One on a drained node gets a new one beside it, so that
    /// it serves until that does, or goes itself where there is no room for both.
    fn places(&self) -> Vec<ReplicaId> {
        match self.cause {
            Cause::Missing { .. } => vec![ReplicaId(0)],
            Cause::Troubled(placement, Trouble::Lost(_)) => vec![placement.replica],
            Cause::Troubled(placement, Trouble::Drained(_)) => vec![ReplicaId(0), placement.replica],
        }
    }

    fn wishes(&self) -> Wishes {
        wishes(self.deployment)
    }

    fn placement(&self, replica: ReplicaId, stages: &[StagePlace], room: Room, layout: &Layout) -> Placement {
        Placement {
            model: self.deployment.model.name.clone(),
            replica,
            stages: stages.to_vec(),
            blocks: room.blocks,
            step_tokens_max: room.step_tokens_max,
            predicted: layout.predicted,
        }
    }

    fn words(&self, no_fit: &NoFit) -> String {
        match self.cause {
            Cause::Missing { placed } => {
                let wanted = self.deployment.replicas;
                format!("{placed} of {wanted} replica(s) are placed: {no_fit}")
            }
            Cause::Troubled(placement, trouble) => {
                let replica = placement.replica;
                match trouble {
                    Trouble::Lost(node) => {
                        format!("replica {replica} has lost node {node} and has no other place: {no_fit}")
                    }
                    Trouble::Drained(node) => {
                        format!(
                            "replica {replica} stays on node {node}, which is drained, and goes on serving there: {no_fit}"
                        )
                    }
                }
            }
        }
    }
}

pub(super) fn layers(stage: &StagePlace) -> Range<u32> {
    stage.layer_first..stage.layer_end
}
