//! A model on its ranks: weights, KV bytes, the forward pass, the choice of tokens.
//!
//! No IO, no clock, no threads: bytes of the model file come in as a slice, a rank computes one step when told to. The
//! thread that runs the engine keeps a [`SequenceTable`], which turns a plan into the [`StepInput`] that all ranks get.
#![deny(unsafe_code)]

mod constraint;
#[allow(unsafe_code)]
pub mod exchange;
pub mod gguf;
mod kv;
mod layout;
mod memory;
pub mod model;
mod numerics;
mod rank;
pub mod sample;
mod sequences;
mod shape;
mod stage;
mod stage_table;
mod step;
pub mod testing;

pub use constraint::{Constraint, GrammarEnd, Mask, TokenMask};
pub use exchange::{Exchange, Lost, Shm, Solo};
pub use gguf::{Gguf, GgufError};
pub use memory::ModelMemory;
pub use model::{
    ArrivalError, Arrivals, ConfigError, LoadError, ModelConfig, NoPackedCache, NothingToCome, PackedCache,
    WeightSource,
};
pub use numerics::numerics_fingerprint;
pub use rank::{Rank, Share};
pub use sample::SampledToken;
pub use sequences::SequenceTable;
pub use shape::{model_shape, product_kind};
pub use stage::{Output, Stage};
pub use stage_table::{PlanBounds, StageTable, UnfitPlan};
pub use step::{LogitRow, PASS_ROWS_MAX, Pass, Purpose, StepInput, StepOutput};
