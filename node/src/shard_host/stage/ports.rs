use proto::ReplicaId;
use proto::stage::StageAddress;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is said of a stage of which nothing is known.
pub const NOT_THERE_YET: &str = "its process is not there yet";

/// Where the stages on this node take connections from others, by replica, or why they do not. Cheap to copy.
#[derive(Clone, Default)]
pub struct StagePorts(Arc<Mutex<BTreeMap<ReplicaId, Result<StageAddress, String>>>>);

impl StagePorts {
    pub fn set(&self, replica: ReplicaId, address: StageAddress) {
        self.lock().insert(replica, Ok(address));
    }

    /// Its process has ended for this reason, or cannot be started. It may be tried again.
    pub fn fail(&self, replica: ReplicaId, reason: String) {
        self.lock().insert(replica, Err(reason));
    }

    /// It is not here any more.
    pub fn remove(&self, replica: ReplicaId) {
        self.lock().remove(&replica);
    }

    /// Else why not.
    pub fn find(&self, replica: ReplicaId) -> Result<StageAddress, String> {
        let known = self.lock().get(&replica).cloned();
        known.unwrap_or_else(|| Err(NOT_THERE_YET.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Result<StageAddress, String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
