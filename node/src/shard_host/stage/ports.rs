use proto::ReplicaId;
use proto::stage::StageAddress;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the stages on this node take connections from others, by replica. Cheap to copy.
#[derive(Clone, Default)]
pub struct StagePorts(Arc<Mutex<BTreeMap<ReplicaId, StageAddress>>>);

impl StagePorts {
    pub fn set(&self, replica: ReplicaId, address: StageAddress) {
        self.lock().insert(replica, address);
    }

    /// Its process has ended.
    pub fn remove(&self, replica: ReplicaId) {
        self.lock().remove(&replica);
    }

    pub fn find(&self, replica: ReplicaId) -> Option<StageAddress> {
        self.lock().get(&replica).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, StageAddress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
