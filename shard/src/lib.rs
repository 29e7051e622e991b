//! A model on its ranks: weights, KV bytes, the forward pass, the choice of tokens.
//!
//! No IO, no clock, no threads: bytes of the model file come in as a slice, a rank computes one step when told to.

pub mod gguf;
pub mod model;
pub mod testing;

pub use gguf::{Gguf, GgufError};
pub use model::{ConfigError, ModelConfig};
