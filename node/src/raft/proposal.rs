//! A change that somebody wants agreed on.

use crate::random;
use proto::cluster::{ClusterCommand, Proposal};

/// With a number of its own: however often it is sent, it counts once.
pub fn propose(command: ClusterCommand) -> Proposal {
    Proposal {
        id: u128::from_le_bytes(random::bytes()),
        command,
    }
}
