//! Which member may ask for which command.

use super::{ClusterState, Rejected};
use proto::NodeId;
use proto::cluster::{ClusterCommand, MemberIs, Role, TokenRecord};

/// Who has to ask for a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    /// What people do to the service, on whatever node they are.
    Anybody,
    /// What decides who is trusted, and where things are placed. A worker is a host that comes and goes: whoever takes it
    /// over must not get hold of the cluster by it.
    Voter,
    /// What a member says of itself.
    Only(NodeId),
}

impl ClusterState {
    /// Of a command that came from another member. Whether it counts is for [`ClusterState::apply`] to say. Roles never change, so
    /// that an answer holds for as long as the member is one.
    pub fn may_ask(&self, from: NodeId, command: &ClusterCommand) -> Result<(), Rejected> {
        let member = self.member(from);
        let role = member.ok_or(Rejected::MemberUnknown { node: from })?.role;
        match (self.asker(command), role) {
            (Asker::Anybody, Role::Voter | Role::Worker) | (Asker::Voter, Role::Voter) => Ok(()),
            (Asker::Voter, Role::Worker) => Err(Rejected::ForVoters { node: from }),
            (Asker::Only(node), Role::Voter | Role::Worker) if node == from => Ok(()),
            (Asker::Only(_), Role::Voter | Role::Worker) => Err(Rejected::ForItself { node: from }),
        }
    }

    fn asker(&self, command: &ClusterCommand) -> Asker {
        match command {
            ClusterCommand::Found(_)
            | ClusterCommand::Join(_)
            | ClusterCommand::SetAuthorities(_)
            | ClusterCommand::StepAuthorities(_)
            | ClusterCommand::SetFeatureLevel(_)
            | ClusterCommand::Place(_)
            | ClusterCommand::Unplace(_) => Asker::Voter,
            ClusterCommand::AddToken(token) => lets_in(token),
            ClusterCommand::RemoveMember(member) => self.removes(member),
            ClusterCommand::MoveMember(member) => Asker::Only(member.node),
            ClusterCommand::ServeModels(models) => Asker::Only(models.node),
            ClusterCommand::Profile(profile) => Asker::Only(profile.node),
            ClusterCommand::RevokeToken(_)
            | ClusterCommand::Drain(_)
            | ClusterCommand::Resume(_)
            | ClusterCommand::AddTenant(_)
            | ClusterCommand::RemoveTenant(_)
            | ClusterCommand::AddKey(_)
            | ClusterCommand::RevokeKey(_)
            | ClusterCommand::Deploy(_)
            | ClusterCommand::Undeploy(_) => Asker::Anybody,
        }
    }

    fn removes(&self, member: &MemberIs) -> Asker {
        match self.member(member.node).map(|member| member.role) {
            Some(Role::Voter) => Asker::Voter,
            Some(Role::Worker) | None => Asker::Anybody,
        }
    }
}

/// Nobody lets in who may do more than itself.
fn lets_in(token: &TokenRecord) -> Asker {
    match token.role {
        Role::Voter => Asker::Voter,
        Role::Worker => Asker::Anybody,
    }
}
