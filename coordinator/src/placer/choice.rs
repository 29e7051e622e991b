//! The next change of what is placed, from what is there: pure.
//!
//! First what is too many goes, then what has lost a node moves, then what is on a drained one, and at last what is missing
//! is placed. A replica whose nodes are well is left where it is, even when a better place comes up: moving it costs every
//! stream on it a pause. Where room is short, caches of others are made smaller, down to the least they work with.

use super::layout::{Device, Layout, NoFit, Sizes, Wishes, fit};
use super::view::View;
use proto::cluster::{ClusterCommand, Deployment, NodeProfile, Placement, StagePlace, Unplace};
use proto::{NodeId, ReplicaId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    Change(ClusterCommand),
    /// Nothing can be done; why the rest has to wait, by model.
    Rest(BTreeMap<String, String>),
}

pub fn next(view: &View, lost: &BTreeSet<NodeId>) -> Choice {
    let table = Table::new(view, lost);
    if let Some(command) = table.too_many() {
        return Choice::Change(command);
    }
    let mut obstacles = BTreeMap::new();
    for need in table.needs() {
        match table.meet(&need) {
            Ok(placement) => return Choice::Change(ClusterCommand::Place(Box::new(placement))),
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
    let table = Table::new(view, lost);
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

struct Table<'a> {
    view: &'a View,
    /// Of the nodes that may be placed on.
    usable: BTreeMap<NodeId, &'a NodeProfile>,
    lost: &'a BTreeSet<NodeId>,
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
enum Trouble {
    /// It runs no more.
    Lost(NodeId),
    /// It runs, and should not here.
    Drained(NodeId),
}

/// How much memory of a node counts as free.
#[derive(Clone, Copy)]
enum Caches {
    Kept,
    /// As if every cache on it were as small as can be.
    Least,
}

impl<'a> Table<'a> {
    fn new(view: &'a View, lost: &'a BTreeSet<NodeId>) -> Table<'a> {
        let usable = view
            .profiles
            .iter()
            .filter(|profile| !lost.contains(&profile.node) && !view.drained.contains(&profile.node));
        Table {
            view,
            usable: usable.map(|profile| (profile.node, profile)).collect(),
            lost,
        }
    }

    /// One that does not run goes first, then the youngest.
    fn too_many(&self) -> Option<ClusterCommand> {
        self.view.deployments.iter().find_map(|deployment| {
            let placed: Vec<&Placement> = self.view.placements_of(&deployment.model.name).collect();
            if placed.len() <= deployment.replicas as usize {
                return None;
            }
            let worst = placed
                .into_iter()
                .max_by_key(|placement| (self.trouble(placement).is_some(), placement.replica))?;
            let replica = worst.replica;
            Some(ClusterCommand::Unplace(Box::new(Unplace { replica })))
        })
    }

    /// The most urgent first.
    fn needs(&self) -> Vec<Need<'a>> {
        let (mut lost, mut drained, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for deployment in &self.view.deployments {
            let mut placed = 0;
            for placement in self.view.placements_of(&deployment.model.name) {
                placed += 1;
                if let Some(trouble) = self.trouble(placement) {
                    let urgency = match trouble {
                        Trouble::Lost(_) => &mut lost,
                        Trouble::Drained(_) => &mut drained,
                    };
                    let cause = Cause::Troubled(placement, trouble);
                    urgency.push(Need { deployment, cause });
                }
            }
            if placed < deployment.replicas as usize {
                let cause = Cause::Missing { placed };
                missing.push(Need { deployment, cause });
            }
        }
        lost.into_iter().chain(drained).chain(missing).collect()
    }

    /// `None`: all its nodes are well.
    fn trouble(&self, placement: &Placement) -> Option<Trouble> {
        let nodes = || placement.stages.iter().map(|stage| stage.node);
        let is_known = |node: &NodeId| self.view.profiles.iter().any(|profile| profile.node == *node);
        let is_lost = |node: &NodeId| self.lost.contains(node) || !is_known(node);
        let lost = nodes().find(is_lost).map(Trouble::Lost);
        lost.or_else(|| {
            nodes()
                .find(|node| self.view.drained.contains(node))
                .map(Trouble::Drained)
        })
    }

    /// A placement for it, or one of another replica that makes room.
    fn meet(&self, need: &Need<'a>) -> Result<Placement, NoFit> {
        let (layout, caches) = self.find(need.deployment, need.replica(), need.wishes())?;
        Ok(match caches {
            Caches::Kept => need.placement(&layout.stages, layout.blocks, &layout),
            Caches::Least => self.make_room(need, &layout),
        })
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
        let device = |profile: &NodeProfile| {
            let free_bytes = self.view.free_bytes(profile, replica);
            let spare_bytes = match caches {
                Caches::Kept => 0,
                Caches::Least => self.spare_bytes(profile.node, replica),
            };
            Device {
                node: profile.node,
                memory_bytes: free_bytes.saturating_add(spare_bytes),
                threads: profile.threads,
                rates: profile.rates.clone(),
                links: profile.links.clone(),
            }
        };
        self.usable.values().map(|profile| device(profile)).collect()
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
    fn make_room(&self, need: &Need<'a>, layout: &Layout) -> Placement {
        let sizes = Sizes::new(&need.deployment.shape, need.wishes().ranks);
        let blocks = sizes.blocks_least();
        let least = |stage: &StagePlace| StagePlace {
            memory_bytes: sizes.memory_bytes(&layers(stage), blocks),
            ..*stage
        };
        let stages: Vec<StagePlace> = layout.stages.iter().map(least).collect();
        for stage in &stages {
            let profile = self.usable[&stage.node];
            let free_bytes = self.view.free_bytes(profile, need.replica());
            let lacking_bytes = stage.memory_bytes.saturating_sub(free_bytes);
            if lacking_bytes > 0 {
                let richest = self
                    .shrinkable(stage.node, need.replica())
                    .max_by_key(|(placement, bytes)| (*bytes, Reverse(placement.replica)));
                let (placement, _) = richest.expect("with the least of caches there is room");
                return self.shrunk(placement, stage.node, lacking_bytes);
            }
        }
        need.placement(&stages, blocks, layout)
    }

    /// With so much less cache on this node, or as little as it can have.
    fn shrunk(&self, placement: &Placement, node: NodeId, bytes: u64) -> Placement {
        let deployment = self.view.deployment(&placement.model);
        let shape = &deployment.expect("only what is deployed is placed").shape;
        let block_bytes = |stage: &StagePlace| Sizes::new(shape, stage.ranks).block_bytes(&layers(stage));
        let stage = placement.stages.iter().find(|stage| stage.node == node);
        let block_bytes_here = stage.map(block_bytes).unwrap_or(0).max(1);
        let spare = placement
            .blocks
            .saturating_sub(Sizes::new(shape, 1).blocks_least());
        let given = bytes.div_ceil(block_bytes_here).min(u64::from(spare));
        let smaller = |stage: &StagePlace| {
            let given_bytes = block_bytes(stage).saturating_mul(given);
            StagePlace {
                memory_bytes: stage.memory_bytes.saturating_sub(given_bytes),
                ..*stage
            }
        };
        Placement {
            stages: placement.stages.iter().map(smaller).collect(),
            blocks: placement.blocks - given as u32,
            ..placement.clone()
        }
    }
}

impl Need<'_> {
    /// 0: a new one.
    fn replica(&self) -> ReplicaId {
        match self.cause {
            Cause::Missing { .. } => ReplicaId(0),
            Cause::Troubled(placement, _) => placement.replica,
        }
    }

    fn wishes(&self) -> Wishes {
        wishes(self.deployment)
    }

    fn placement(&self, stages: &[StagePlace], blocks: u32, layout: &Layout) -> Placement {
        Placement {
            model: self.deployment.model.name.clone(),
            replica: self.replica(),
            stages: stages.to_vec(),
            blocks,
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
                        format!("replica {replica} stays on node {node}, which is drained: {no_fit}")
                    }
                }
            }
        }
    }
}

fn layers(stage: &StagePlace) -> Range<u32> {
    stage.layer_first..stage.layer_end
}
