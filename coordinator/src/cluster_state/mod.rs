//! What the committed log means.
//!
//! Every node applies the same commands at the same places of the log and arrives at the same state, so a command that is
//! invalid where it stands is rejected in the same way everywhere and changes nothing. Pure: times and random numbers
//! come inside the commands.

mod accept;
mod image;
mod placing;
mod rebirth;
mod rights;
#[cfg(test)]
mod tests;

pub use rebirth::Sole;

pub use proto::cluster::{Applied, Outcome, Rejected};
use proto::cluster::{
    ClusterCommand, Deployment, Founding, KeyRecord, MemberAt, MemberRecord, ModelRecord, NewMember,
    NodeModels, NodeProfile, Placement, Proposal, ReplicaRecord, Role, TenantRecord, TokenRecord,
};
use proto::{Epoch, NodeId, ReplicaId, TenantId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The founder's id. All others come from the index of the entry that let them in, which is greater.
pub const FOUNDER: NodeId = NodeId(1);
/// The tenant that every cluster has from the start.
pub const DEFAULT_TENANT: TenantId = TenantId(1);
pub const DEFAULT_TENANT_NAME: &str = "default";

/// Between the first epochs of two runs of a node: it counts up by one for each start of a shard host.
pub const EPOCHS_OF_A_RUN: u64 = 1 << 20;

/// Proposals whose outcome is remembered: many more than can be under way at the same time.
const RECENT_MAX: usize = 256;

/// Everything that is agreed on, as of one place in the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterState {
    /// 0: not founded yet.
    cluster: u128,
    version: u64,
    level: u32,
    authorities: Vec<Vec<u8>>,
    authorities_at: u64,
    members: BTreeMap<NodeId, MemberRecord>,
    node_max: NodeId,
    tokens: BTreeMap<String, TokenRecord>,
    drained: BTreeSet<NodeId>,
    models: BTreeMap<String, ModelRecord>,
    replicas: BTreeMap<ReplicaId, ReplicaRecord>,
    replica_next: u32,
    deployments: BTreeMap<String, Deployment>,
    profiles: BTreeMap<NodeId, NodeProfile>,
    /// Each has its replica above.
    placements: BTreeMap<ReplicaId, Placement>,
    tenants: BTreeMap<TenantId, TenantRecord>,
    tenant_next: u32,
    keys: BTreeMap<String, KeyRecord>,
    recent: VecDeque<(u128, Outcome)>,
}

impl ClusterState {
    /// The next proposal of the log, which stands at `index`. Every one counts into [`ClusterState::version`]; one that was
    /// applied before changes nothing and has the outcome that it had.
    pub fn apply(&mut self, index: u64, proposal: &Proposal) -> Outcome {
        self.version += 1;
        let before = self.recent.iter().find(|(id, _)| *id == proposal.id);
        if let Some((_, outcome)) = before {
            return outcome.clone();
        }
        let outcome = self.change(index, &proposal.command);
        self.recent.push_back((proposal.id, outcome.clone()));
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        outcome
    }

    fn change(&mut self, index: u64, command: &ClusterCommand) -> Outcome {
        self.accepts(command)?;
        Ok(match command {
            ClusterCommand::Found(founding) => self.found(founding),
            ClusterCommand::AddToken(token) => {
                self.tokens.insert(token.token.clone(), (**token).clone());
                Applied::Done
            }
            ClusterCommand::RevokeToken(token) => {
                self.tokens.remove(&token.token);
                Applied::Done
            }
            ClusterCommand::Join(join) => self.join(index, join),
            ClusterCommand::RemoveMember(member) => self.remove_member(member.node),
            ClusterCommand::MoveMember(member) => self.move_member(member),
            ClusterCommand::ServeModels(models) => self.serve(models),
            ClusterCommand::Drain(drain) => {
                self.drained.insert(drain.node);
                Applied::Done
            }
            ClusterCommand::Resume(resume) => {
                self.drained.remove(&resume.node);
                Applied::Done
            }
            ClusterCommand::AddTenant(tenant) => self.add_tenant(&tenant.name, tenant.salt),
            ClusterCommand::RemoveTenant(tenant) => {
                self.tenants.remove(&tenant.tenant);
                Applied::Done
            }
            ClusterCommand::AddKey(key) => {
                self.keys.insert(key.key_id.clone(), (**key).clone());
                Applied::Done
            }
            ClusterCommand::RevokeKey(key) => {
                self.keys.remove(&key.key_id);
                Applied::Done
            }
            ClusterCommand::SetAuthorities(authorities) => {
                self.authorities = authorities.certificates.clone();
                Applied::Done
            }
            ClusterCommand::StepAuthorities(step) => {
                self.authorities = step.certificates.clone();
                self.authorities_at = self.version;
                Applied::Done
            }
            ClusterCommand::SetFeatureLevel(feature) => {
                self.level = feature.level;
                Applied::Done
            }
            ClusterCommand::Profile(profile) => self.take_profile(profile),
            ClusterCommand::Deploy(deployment) => self.deploy(deployment),
            ClusterCommand::Undeploy(undeploy) => self.undeploy(&undeploy.model),
            ClusterCommand::Place(placement) => self.place(placement),
            ClusterCommand::Unplace(unplace) => self.unplace(unplace.replica),
        })
    }

    /// 0 until it has been founded.
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    pub fn is_founded(&self) -> bool {
        self.cluster != 0
    }

    /// How many commands have been applied.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Commands up to this level may be logged.
    pub fn feature_level(&self) -> u32 {
        self.level
    }

    /// DER certificates of those whose signatures count, the one that signs first.
    pub fn authorities(&self) -> &[Vec<u8>] {
        &self.authorities
    }

    /// What the next step of a rotation follows upon: see [`proto::cluster::AuthoritiesStep`].
    pub fn authorities_at(&self) -> u64 {
        self.authorities_at
    }

    /// By id.
    pub fn members(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.values()
    }

    /// `None`: never joined, or removed.
    pub fn member(&self, node: NodeId) -> Option<&MemberRecord> {
        self.members.get(&node)
    }

    /// Did this id belong to a node at some time? Ids are given in ascending order.
    pub fn was_given(&self, node: NodeId) -> bool {
        node <= self.node_max
    }

    /// The member that this public key belongs to.
    pub fn member_by_key(&self, spki: &[u8; 32]) -> Option<&MemberRecord> {
        self.members.values().find(|member| member.spki == *spki)
    }

    pub fn token(&self, token: &str) -> Option<&TokenRecord> {
        self.tokens.get(token)
    }

    /// Takes no new requests; what runs may end.
    pub fn is_drained(&self, node: NodeId) -> bool {
        self.drained.contains(&node)
    }

    /// By name.
    pub fn models(&self) -> impl Iterator<Item = &ModelRecord> {
        self.models.values()
    }

    pub fn model(&self, name: &str) -> Option<&ModelRecord> {
        self.models.get(name)
    }

    /// By id.
    pub fn replicas(&self) -> impl Iterator<Item = &ReplicaRecord> {
        self.replicas.values()
    }

    pub fn replica(&self, replica: ReplicaId) -> Option<&ReplicaRecord> {
        self.replicas.get(&replica)
    }

    /// By which the node serves this model by its own choice.
    pub fn own_replica(&self, node: NodeId, model: &str) -> Option<&ReplicaRecord> {
        self.own_replicas(node).find(|replica| replica.model == model)
    }

    /// By id.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantRecord> {
        self.tenants.values()
    }

    pub fn tenant(&self, id: TenantId) -> Option<&TenantRecord> {
        self.tenants.get(&id)
    }

    /// By key id.
    pub fn keys(&self) -> impl Iterator<Item = &KeyRecord> {
        self.keys.values()
    }

    /// `None`: never existed, or revoked.
    pub fn key(&self, key_id: &str) -> Option<&KeyRecord> {
        self.keys.get(key_id)
    }

    fn found(&mut self, founding: &Founding) -> Applied {
        self.cluster = founding.cluster;
        self.level = founding.level;
        self.authorities = vec![founding.authority.clone()];
        self.node_max = FOUNDER;
        self.members.insert(
            FOUNDER,
            MemberRecord {
                node: FOUNDER,
                spki: founding.spki,
                role: Role::Voter,
                quic: founding.quic.clone(),
                http: founding.http.clone(),
                level: founding.level,
                joined_at_secs: founding.at_secs,
            },
        );
        self.tenant_next = DEFAULT_TENANT.0;
        self.add_tenant(DEFAULT_TENANT_NAME, founding.salt);
        Applied::Member(FOUNDER)
    }

    /// A member that asks again, because it did not hear the answer, is told the same.
    fn join(&mut self, index: u64, join: &NewMember) -> Applied {
        if let Some(member) = self.member_by_key(&join.spki) {
            return Applied::Member(member.node);
        }
        let node = NodeId(index);
        assert!(
            node > self.node_max,
            "an index of the log comes once, and so does an id"
        );
        self.node_max = node;
        let token = self
            .tokens
            .remove(&join.token)
            .expect("it was accepted by this token");
        self.members.insert(
            node,
            MemberRecord {
                node,
                spki: join.spki,
                role: token.role,
                quic: join.quic.clone(),
                http: join.http.clone(),
                level: join.level,
                joined_at_secs: join.at_secs,
            },
        );
        Applied::Member(node)
    }

    fn remove_member(&mut self, node: NodeId) -> Applied {
        self.members.remove(&node);
        self.drained.remove(&node);
        self.unplace_all_on(node);
        self.replicas.retain(|_, replica| replica.node != node);
        self.forget_unserved();
        Applied::Done
    }

    fn move_member(&mut self, at: &MemberAt) -> Applied {
        if let Some(member) = self.members.get_mut(&at.node) {
            member.quic.clone_from(&at.quic);
            member.http.clone_from(&at.http);
            member.level = at.level;
        }
        Applied::Done
    }

    /// A replica that the node had before keeps its id and gets epochs beyond all that it can have used. What was placed
    /// on it stays, and begins anew as the node does.
    fn serve(&mut self, models: &NodeModels) -> Applied {
        let mut serves = Vec::new();
        for model in &models.models {
            let known = self.own_replica(models.node, &model.name);
            let (replica, epoch) = match known {
                Some(known) => (known.replica, Epoch(known.epoch.0 + EPOCHS_OF_A_RUN)),
                None => (self.next_replica(), Epoch(EPOCHS_OF_A_RUN)),
            };
            serves.push(ReplicaRecord {
                replica,
                node: models.node,
                model: model.name.clone(),
                epoch,
            });
            let unchanged = self
                .models
                .get(&model.name)
                .filter(|old| old.digest == model.digest);
            let kept = unchanged.unwrap_or(model).clone();
            self.models.insert(model.name.clone(), kept);
        }
        self.replicas
            .retain(|id, replica| replica.node != models.node || self.placements.contains_key(id));
        self.restart_placed_on(models.node);
        self.replicas
            .extend(serves.iter().map(|record| (record.replica, record.clone())));
        self.forget_unserved();
        Applied::Replicas(serves)
    }

    /// Those that the node serves by its own choice.
    fn own_replicas(&self, node: NodeId) -> impl Iterator<Item = &ReplicaRecord> {
        self.replicas()
            .filter(move |replica| replica.node == node && !self.placements.contains_key(&replica.replica))
    }

    fn next_replica(&mut self) -> ReplicaId {
        self.replica_next += 1;
        ReplicaId(self.replica_next)
    }

    /// A model lives as long as it is deployed, or a replica of it lives.
    fn forget_unserved(&mut self) {
        let served: BTreeSet<String> = self
            .replicas
            .values()
            .map(|replica| replica.model.clone())
            .collect();
        self.models
            .retain(|name, _| served.contains(name) || self.deployments.contains_key(name));
    }

    fn add_tenant(&mut self, name: &str, salt: [u8; 32]) -> Applied {
        let id = TenantId(self.tenant_next);
        self.tenant_next += 1;
        let name = name.to_owned();
        self.tenants.insert(id, TenantRecord { id, name, salt });
        Applied::Tenant(id)
    }
}
