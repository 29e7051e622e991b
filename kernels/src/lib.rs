//! Arithmetic on buffers: the operations an LLM decoder is made of, once in plain loops and once fast.
//!
//! [`Ops`] is the seam. [`reference::Reference`] is the truth; [`cpu::Cpu`] must give the same bits.

pub mod ops;

pub mod format;
pub mod reference;
pub mod scalar;

pub mod cpu;

pub mod memory;
pub mod packed;
pub mod tensor;

pub use cpu::{Cpu, Level, Team};
pub use format::{KvFormat, WeightFormat};
pub use ops::{
    AttentionShape, Batch, HEAD_DIM_MAX, InputPrecision, Ops, OpsError, RopePairing, RopeTable, SequenceRows,
};
pub use packed::{Keeper, PackedBytes};
pub use reference::Reference;
