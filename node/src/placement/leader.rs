//! The placer, beside the Raft leader: it runs where the leader is, sees what was agreed on and who is silent, and proposes.

use super::explanations::Explanations;
use crate::state::NodeState;
use std::sync::Arc;

pub struct Leading {
    pub state: Arc<NodeState>,
    pub explanations: Explanations,
}

impl Leading {
    /// For as long as the node lives.
    pub async fn keep(self) {}
}
