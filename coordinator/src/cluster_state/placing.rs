//! Models that are deployed to the cluster: which commands about them count, and what they do.
//!
//! What is placed on a node never exceeds what it says it can carry, whatever is proposed and by whom.

use super::{ClusterState, EPOCHS_OF_A_RUN};
use proto::cluster::{
    Applied, Deployment, ModelShape, NodeProfile, OverBudget, Placement, Rejected, ReplicaRecord,
};
use proto::{Epoch, NodeId, ReplicaId};

/// Beyond what any model has; a bound on what cutting it into stages costs.
const LAYERS_MAX: u32 = 1024;

impl ClusterState {
    /// By name.
    pub fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.deployments.values()
    }

    pub fn deployment(&self, name: &str) -> Option<&Deployment> {
        self.deployments.get(name)
    }

    /// By node.
    pub fn profiles(&self) -> impl Iterator<Item = &NodeProfile> {
        self.profiles.values()
    }

    /// `None`: it has not measured itself yet.
    pub fn profile(&self, node: NodeId) -> Option<&NodeProfile> {
        self.profiles.get(&node)
    }

    /// By replica.
    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.placements.values()
    }

    /// `None`: there is no such replica, or its node serves it by its own choice.
    pub fn placement(&self, replica: ReplicaId) -> Option<&Placement> {
        self.placements.get(&replica)
    }

    /// Those with a stage on `node`, by replica.
    pub fn placements_of(&self, node: NodeId) -> impl Iterator<Item = &Placement> {
        self.placements().filter(move |placement| is_on(placement, node))
    }

    /// May routers use this replica of `node`? A drained node offers nothing that it serves by its own choice; what was placed
    /// there serves until it has another place.
    pub fn is_offered(&self, replica: ReplicaId, node: NodeId) -> bool {
        !self.is_drained(node) || self.placement(replica).is_some()
    }

    /// Of the node's budget, what is taken by everything that is placed there.
    pub fn placed_bytes(&self, node: NodeId) -> u64 {
        self.placed_bytes_but(node, ReplicaId(0))
    }

    fn placed_bytes_but(&self, node: NodeId, replica: ReplicaId) -> u64 {
        self.placements_of(node)
            .filter(|placement| placement.replica != replica)
            .map(|placement| bytes_on(placement, node))
            .fold(0, u64::saturating_add)
    }

    /// Do copies that are placed stay as they are when this is deployed? Otherwise they are cut anew.
    pub fn leaves_placed(&self, deployment: &Deployment) -> bool {
        let before = self.deployment(&deployment.model.name);
        before.is_none_or(|before| before.shape == deployment.shape && before.ranks == deployment.ranks)
    }

    pub(super) fn accepts_deployment(&self, deployment: &Deployment) -> Result<(), Rejected> {
        let name = deployment.model.name.clone();
        let ranks = 1..=deployment.shape.heads;
        if !is_sound(&deployment.shape) || !ranks.contains(&deployment.ranks) {
            return Err(Rejected::ShapeUnfit { name });
        }
        let known = self.model(&name);
        match known.is_some_and(|known| known.digest != deployment.model.digest) {
            true => Err(Rejected::ModelDiffers { name }),
            false => Ok(()),
        }
    }

    pub(super) fn knows_deployment(&self, name: &str) -> Result<&Deployment, Rejected> {
        self.deployment(name).ok_or_else(|| Rejected::DeploymentUnknown {
            name: name.to_owned(),
        })
    }

    pub(super) fn knows_placement(&self, replica: ReplicaId) -> Result<(), Rejected> {
        match self.placement(replica) {
            Some(_) => Ok(()),
            None => Err(Rejected::PlacementUnknown { replica }),
        }
    }

    pub(super) fn accepts_placement(&self, placement: &Placement) -> Result<(), Rejected> {
        let deployment = self.knows_deployment(&placement.model)?;
        let replica = placement.replica;
        if replica != ReplicaId(0) {
            let before = self.placement(replica);
            if before.is_none_or(|before| before.model != placement.model) {
                return Err(Rejected::PlacementUnknown { replica });
            }
        }
        if !covers(placement, deployment.shape.layers) {
            return Err(Rejected::StagesUnfit {
                name: placement.model.clone(),
            });
        }
        for stage in &placement.stages {
            self.can_carry(stage.node, stage.memory_bytes, replica)?;
        }
        Ok(())
    }

    fn can_carry(&self, node: NodeId, memory_bytes: u64, replica: ReplicaId) -> Result<(), Rejected> {
        if self.member(node).is_none() {
            return Err(Rejected::MemberUnknown { node });
        }
        if self.is_drained(node) {
            return Err(Rejected::NodeDrained { node });
        }
        let profile = self.profile(node).ok_or(Rejected::ProfileUnknown { node })?;
        let needed_bytes = self.placed_bytes_but(node, replica).saturating_add(memory_bytes);
        let budget_bytes = profile.memory_bytes;
        match needed_bytes <= budget_bytes {
            true => Ok(()),
            false => Err(Rejected::OverBudget(Box::new(OverBudget {
                node,
                needed_bytes,
                budget_bytes,
            }))),
        }
    }

    /// A node that can carry less than before loses its youngest placements until the rest fits: it has restarted, and
    /// they run no more.
    pub(super) fn take_profile(&mut self, profile: &NodeProfile) -> Applied {
        let node = profile.node;
        self.profiles.insert(node, profile.clone());
        while self.placed_bytes(node) > profile.memory_bytes {
            let youngest = self.placements_of(node).map(|placement| placement.replica);
            let youngest = youngest.max().expect("nothing takes no bytes");
            self.unplace(youngest);
        }
        Applied::Done
    }

    /// Sizes or ranks that have changed, of the same file, mean that what is placed was cut for others.
    pub(super) fn deploy(&mut self, deployment: &Deployment) -> Applied {
        let name = &deployment.model.name;
        let leaves_placed = self.leaves_placed(deployment);
        self.deployments.insert(name.clone(), deployment.clone());
        if !leaves_placed {
            self.unplace_where(|placement| placement.model == *name);
        }
        let model = || deployment.model.clone();
        self.models.entry(name.clone()).or_insert_with(model);
        Applied::Done
    }

    pub(super) fn undeploy(&mut self, name: &str) -> Applied {
        self.deployments.remove(name);
        self.unplace_where(|placement| placement.model == name);
        self.forget_unserved();
        Applied::Done
    }

    /// One that was placed before keeps its id and gets epochs beyond all that it can have used.
    pub(super) fn place(&mut self, placement: &Placement) -> Applied {
        let node = placement.head().expect("it was accepted with its stages");
        let (replica, epoch) = match self.replicas.get(&placement.replica) {
            Some(known) => (known.replica, Epoch(known.epoch.0 + EPOCHS_OF_A_RUN)),
            None => (self.next_replica(), Epoch(EPOCHS_OF_A_RUN)),
        };
        let record = ReplicaRecord {
            replica,
            node,
            model: placement.model.clone(),
            epoch,
        };
        let placement = Placement {
            replica,
            ..placement.clone()
        };
        self.placements.insert(replica, placement);
        self.replicas.insert(replica, record.clone());
        Applied::Replicas(vec![record])
    }

    pub(super) fn unplace(&mut self, replica: ReplicaId) -> Applied {
        self.placements.remove(&replica);
        self.replicas.remove(&replica);
        Applied::Done
    }

    /// The node has left the cluster: what ran on it wholly or in part is gone.
    pub(super) fn unplace_all_on(&mut self, node: NodeId) {
        self.profiles.remove(&node);
        self.unplace_where(|placement| is_on(placement, node));
    }

    /// The node has begun a new run, and the engines of these replicas with it.
    pub(super) fn restart_placed_on(&mut self, node: NodeId) {
        let placed = self
            .replicas
            .values_mut()
            .filter(|replica| replica.node == node && self.placements.contains_key(&replica.replica));
        placed.for_each(|replica| replica.epoch.0 += EPOCHS_OF_A_RUN);
    }

    fn unplace_where(&mut self, is_meant: impl Fn(&Placement) -> bool) {
        let meant = self.placements().filter(|placement| is_meant(placement));
        let meant: Vec<ReplicaId> = meant.map(|placement| placement.replica).collect();
        for replica in meant {
            self.unplace(replica);
        }
    }
}

fn is_sound(shape: &ModelShape) -> bool {
    (1..=LAYERS_MAX).contains(&shape.layers)
        && shape.layer_weight_bytes.len() == shape.layers as usize
        && shape.layer_products.len() == shape.layers as usize
        && shape.block_tokens > 0
        && shape.context_tokens_max > 0
}

fn covers(placement: &Placement, layers: u32) -> bool {
    let stages = &placement.stages;
    let mut next = 0;
    let in_order = stages.iter().all(|stage| {
        let fits =
            stage.layer_first == next && stage.layer_end > next && stage.ranks > 0 && stage.threads > 0;
        next = stage.layer_end;
        fits
    });
    let apart = stages
        .iter()
        .enumerate()
        .all(|(index, stage)| stages[..index].iter().all(|other| other.node != stage.node));
    in_order && apart && next == layers && placement.blocks > 0 && placement.step_tokens_max > 0
}

fn is_on(placement: &Placement, node: NodeId) -> bool {
    placement.stages.iter().any(|stage| stage.node == node)
}

fn bytes_on(placement: &Placement, node: NodeId) -> u64 {
    let stages = placement.stages.iter().filter(|stage| stage.node == node);
    stages
        .map(|stage| stage.memory_bytes)
        .fold(0, u64::saturating_add)
}
