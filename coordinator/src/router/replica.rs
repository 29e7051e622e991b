//! What a router knows of one replica.

use proto::engine::{Load, ReplicaInfo};
use proto::{Epoch, Time};

#[derive(Debug)]
pub(super) struct Replica {
    pub model: String,
    pub info: ReplicaInfo,
    pub load: Load,
    /// Submits sent and neither answered nor refused.
    pub outstanding: u32,
    /// Streams of this router that it serves.
    pub streams: u32,
    /// It said it was busy; nothing new before this. `None` once that moment has been seen.
    pub rests_until: Option<Time>,
    pub intake: Intake,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intake {
    Open,
    /// It ends: what it has it finishes.
    Draining,
}

impl Replica {
    pub fn new(model: String, info: ReplicaInfo) -> Replica {
        Replica {
            model,
            info,
            load: Load::default(),
            outstanding: 0,
            streams: 0,
            rests_until: None,
            intake: Intake::Open,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.info.epoch
    }

    /// The longest sequence: bounded by the model and by the pool.
    pub fn context_tokens_max(&self) -> u32 {
        self.info
            .context_tokens_max
            .min(self.info.blocks.saturating_mul(self.info.block_tokens))
    }

    /// Streams it has, of all routers as last reported, of this one as known.
    pub fn pressure(&self) -> u32 {
        self.streams.max(self.load.running + self.load.waiting)
    }
}
