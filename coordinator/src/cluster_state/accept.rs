//! Which commands count.

use super::{ClusterState, Rejected};
use crate::rotation;
use proto::cluster::{
    Authorities, AuthoritiesStep, ClusterCommand, KeyRecord, MemberAt, NewMember, NodeModels, Role,
};
use proto::{NodeId, TenantId};

/// From this feature level on authorities change by steps that leave nobody out.
const STEPS_LEVEL: u32 = 2;

impl ClusterState {
    /// Would [`ClusterState::apply`] take it now? Holds until the next `apply`.
    pub fn accepts(&self, command: &ClusterCommand) -> Result<(), Rejected> {
        self.allows_level(command)?;
        match command {
            ClusterCommand::Found(_) if self.is_founded() => Err(Rejected::Founded),
            ClusterCommand::Found(_) => Ok(()),
            ClusterCommand::AddToken(token) => match self.token(&token.token) {
                Some(_) => Err(Rejected::TokenExists {
                    token: token.token.clone(),
                }),
                None => Ok(()),
            },
            ClusterCommand::RevokeToken(token) => match self.token(&token.token) {
                Some(_) => Ok(()),
                None => Err(Rejected::TokenUnfit),
            },
            ClusterCommand::Join(join) => self.lets_in(join),
            ClusterCommand::RemoveMember(member) => self.can_lose(member.node),
            ClusterCommand::MoveMember(member) => self.accepts_move(member),
            ClusterCommand::ServeModels(models) => self.accepts_models(models),
            ClusterCommand::Drain(drain) => self.knows_member(drain.node),
            ClusterCommand::Resume(resume) => self.knows_member(resume.node),
            ClusterCommand::AddTenant(tenant) => self.accepts_tenant(&tenant.name),
            ClusterCommand::RemoveTenant(tenant) => self.can_do_without(tenant.tenant),
            ClusterCommand::AddKey(key) => self.accepts_key(key),
            ClusterCommand::RevokeKey(key) => match self.key(&key.key_id) {
                Some(_) => Ok(()),
                None => Err(Rejected::KeyUnknown {
                    key_id: key.key_id.clone(),
                }),
            },
            ClusterCommand::SetAuthorities(authorities) => self.accepts_authorities(authorities),
            ClusterCommand::StepAuthorities(step) => self.accepts_step(step),
            ClusterCommand::SetFeatureLevel(feature) => self.accepts_level(feature.level),
            ClusterCommand::Profile(profile) => self.knows_member(profile.node),
            ClusterCommand::Deploy(deployment) => self.accepts_deployment(deployment),
            ClusterCommand::Undeploy(undeploy) => self.knows_deployment(&undeploy.model).map(|_| ()),
            ClusterCommand::Place(placement) => self.accepts_placement(placement),
            ClusterCommand::Unplace(unplace) => self.knows_placement(unplace.replica),
        }
    }

    /// Does every member understand this command? What one does not must not be logged, nor be said to it.
    pub fn allows_level(&self, command: &ClusterCommand) -> Result<(), Rejected> {
        let (needed, level) = (command.level(), self.level);
        match self.is_founded() && needed > level {
            true => Err(Rejected::LevelTooLow { needed, level }),
            false => Ok(()),
        }
    }

    /// The time is the member's that took the request in: a token is as good as that clock.
    fn lets_in(&self, join: &NewMember) -> Result<(), Rejected> {
        self.takes_program(join.level)?;
        if self.member_by_key(&join.spki).is_some() {
            return Ok(());
        }
        let token = self.token(&join.token).ok_or(Rejected::TokenUnfit)?;
        match token.secret_hash == join.secret_hash && join.at_secs < token.expires_at_secs {
            true => Ok(()),
            false => Err(Rejected::TokenUnfit),
        }
    }

    fn knows_member(&self, node: NodeId) -> Result<(), Rejected> {
        match self.member(node) {
            Some(_) => Ok(()),
            None => Err(Rejected::MemberUnknown { node }),
        }
    }

    fn can_lose(&self, node: NodeId) -> Result<(), Rejected> {
        self.knows_member(node)?;
        let others = self
            .members()
            .filter(|member| member.node != node && member.role == Role::Voter);
        match others.count() {
            0 => Err(Rejected::LastVoter { node }),
            _ => Ok(()),
        }
    }

    fn accepts_move(&self, member: &MemberAt) -> Result<(), Rejected> {
        self.knows_member(member.node)?;
        self.takes_program(member.level)
    }

    /// What was logged already stays readable to every member, so nobody may be below the committed level.
    fn takes_program(&self, level: u32) -> Result<(), Rejected> {
        match level < self.level {
            true => Err(Rejected::LevelTooLow {
                needed: self.level,
                level,
            }),
            false => Ok(()),
        }
    }

    /// One name means one file on all nodes at the same time.
    fn accepts_models(&self, models: &NodeModels) -> Result<(), Rejected> {
        self.knows_member(models.node)?;
        for model in &models.models {
            let is_deployed = self.deployment(&model.name).is_some();
            let is_elsewhere = self
                .replicas()
                .any(|replica| replica.model == model.name && replica.node != models.node);
            let is_other = self
                .model(&model.name)
                .is_some_and(|known| known.digest != model.digest);
            if (is_deployed || is_elsewhere) && is_other {
                return Err(Rejected::ModelDiffers {
                    name: model.name.clone(),
                });
            }
        }
        Ok(())
    }

    fn accepts_tenant(&self, name: &str) -> Result<(), Rejected> {
        match self.tenants().any(|known| known.name == name) {
            true => Err(Rejected::TenantExists {
                name: name.to_owned(),
            }),
            false => Ok(()),
        }
    }

    fn can_do_without(&self, id: TenantId) -> Result<(), Rejected> {
        let keys = self.keys().filter(|key| key.tenant == id).count() as u64;
        match (self.tenant(id), keys) {
            (None, _) => Err(Rejected::TenantUnknown { id }),
            (Some(_), 0) => Ok(()),
            (Some(_), keys) => Err(Rejected::TenantHasKeys { id, keys }),
        }
    }

    fn accepts_key(&self, key: &KeyRecord) -> Result<(), Rejected> {
        if self.tenant(key.tenant).is_none() {
            Err(Rejected::TenantUnknown { id: key.tenant })
        } else if self.key(&key.key_id).is_some() {
            Err(Rejected::KeyExists {
                key_id: key.key_id.clone(),
            })
        } else {
            Ok(())
        }
    }

    fn accepts_level(&self, level: u32) -> Result<(), Rejected> {
        let is_understood = self.members().all(|member| member.level >= level);
        match is_understood && level > self.level {
            true => Ok(()),
            false => Err(Rejected::LevelUnfit { level }),
        }
    }

    /// From feature level 2 on they go step by step.
    fn accepts_authorities(&self, authorities: &Authorities) -> Result<(), Rejected> {
        match authorities.certificates.len() {
            1 | 2 if self.level < STEPS_LEVEL => Ok(()),
            1 | 2 => Err(Rejected::AuthoritiesLeap),
            count => Err(Rejected::AuthoritiesUnfit { count: count as u64 }),
        }
    }

    fn accepts_step(&self, step: &AuthoritiesStep) -> Result<(), Rejected> {
        let is_next = step.after == self.authorities_at;
        match is_next && rotation::is_step(&self.authorities, &step.certificates) {
            true => Ok(()),
            false => Err(Rejected::AuthoritiesLeap),
        }
    }
}
