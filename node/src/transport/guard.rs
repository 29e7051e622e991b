//! Stands between a connection and whoever reads from it: is the other side still a member?

use super::error::{CloseCode, LinkError};
use super::service::Membership;
use crate::trust::SpkiHash;
use proto::NodeId;
use proto::join::Role;
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct Guard {
    pub node: NodeId,
    pub spki: SpkiHash,
    pub connection: quinn::Connection,
    pub membership: Arc<dyn Membership>,
}

impl Guard {
    /// Closes the connection where it is not. To be asked before anything that the other has said counts.
    pub fn check(&self) -> Result<Role, LinkError> {
        match self.membership.member(&self.spki) {
            Some((node, role)) if node == self.node => Ok(role),
            Some(_) | None => {
                CloseCode::NotAMember.close(&self.connection);
                Err(LinkError::CutOff { node: self.node })
            }
        }
    }

    /// The other has broken the rules: nothing that it says is listened to any more.
    pub fn wrong(&self, error: LinkError) -> LinkError {
        CloseCode::Protocol.close(&self.connection);
        error
    }

    /// What a stream that has broken off is told of as: the connection's own reason, where it has one.
    pub fn closed(&self, reason: impl std::fmt::Display) -> LinkError {
        let reason = match self.connection.close_reason() {
            Some(closed) => closed.to_string(),
            None => reason.to_string(),
        };
        LinkError::Closed {
            node: self.node,
            reason,
        }
    }
}
