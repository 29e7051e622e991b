//! What a node is to serve and cannot have at present, such as for a full disk: tried again until it can.

use super::model::{Failed, PreparedModel, Wish};
use super::replicas::OwnReplicas;
use super::shared::{SharedModel, Sought};
use crate::actors::board::{Phase, Where};
use crate::clock;
use crate::os;
use crate::placement::file::is_damage;
use crate::shard_host::prepare::MemoryPlan;
use proto::cluster::{ModelRecord, ReplicaRecord};
use std::slice;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const TRY_AGAIN_MIN: Duration = Duration::from_secs(5);
/// A source outside the cluster may be asked each time.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(60);

/// A model of the cluster's that is not here yet.
pub struct WaitingModel {
    pub model: SharedModel,
    pub reason: String,
    /// Is what is here of it damaged?
    pub is_damaged: bool,
    /// The memory that was there for it.
    available: u64,
    memory_bytes: u64,
}

impl WaitingModel {
    /// `None`: there is no room for it in memory.
    pub fn new(model: &SharedModel, failed: &Failed<'_>) -> Option<WaitingModel> {
        Some(WaitingModel {
            reason: format!("{:#}", failed.error),
            is_damaged: is_damage(&failed.error),
            available: failed.available,
            memory_bytes: MemoryPlan::foreseen_bytes(model.bytes, failed.available)?,
            model: model.clone(),
        })
    }

    /// Kept free for it.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub fn record(&self) -> ModelRecord {
        ModelRecord {
            name: self.model.named.name.clone(),
            spec: self.model.named.spec.to_string(),
            digest: self.model.digest,
            bytes: self.model.bytes,
            added_at_secs: clock::unix_secs(),
        }
    }
}

impl OwnReplicas {
    /// Shows why until it can be had, and then serves it for as long as the node lives.
    pub async fn wait_for(self, waiting: WaitingModel, record: ReplicaRecord) {
        let (name, board) = (&waiting.model.named.name, self.gateway.board.clone());
        board.starting(record.replica, record.epoch, name, Where::Here);
        let (mut reason, mut pause) = (waiting.reason.clone(), TRY_AGAIN_MIN);
        let model = loop {
            tracing::warn!(
                model = name,
                reason,
                "it cannot be had here yet, and is tried again"
            );
            board.phase(record.replica, Phase::Waiting { reason });
            sleep(pause).await;
            match self.have(&waiting).await {
                Ok(model) => break model,
                Err(error) => {
                    if is_damage(&error) {
                        // Otherwise the same damage would be found each time.
                        self.files.mend(&waiting.model).await;
                    }
                    reason = format!("{error:#}");
                }
            }
            pause = (pause * 2).min(TRY_AGAIN_MAX);
        };
        self.keep(model, record).await;
    }

    async fn have(&self, waiting: &WaitingModel) -> anyhow::Result<PreparedModel> {
        let mut sought = Sought::new(waiting.model.clone());
        self.files.seek(slice::from_mut(&mut sought)).await;
        let (config, shelf) = (Arc::clone(&self.config), self.files.shelf.clone());
        let available = waiting.available.min(os::memory::available_bytes());
        let prepare =
            move || PreparedModel::prepare(Wish::Shared(&sought), shelf.store(), &config, available);
        spawn_blocking(prepare).await?
    }
}
