//! Who is about to be removed, and may vote no more: a member that is gone could never be asked to agree to its own leaving.

use proto::NodeId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cheap to copy; all copies are the same list.
#[derive(Clone, Default)]
pub struct Leaving(Arc<Mutex<Vec<NodeId>>>);

impl Leaving {
    /// Until what this returns is dropped.
    pub fn begin(&self, node: NodeId) -> Leave {
        self.nodes().push(node);
        Leave {
            node,
            leaving: self.clone(),
        }
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes().contains(&node)
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<NodeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Leave {
    node: NodeId,
    leaving: Leaving,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut nodes = self.leaving.nodes();
        if let Some(place) = nodes.iter().position(|node| *node == self.node) {
            nodes.swap_remove(place);
        }
    }
}
