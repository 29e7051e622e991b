//! A decoder, written once over `Ops` and `Exchange`. Families will differ by configuration, never by a copied file.

mod arrivals;
mod attention;
mod collected;
pub mod config;
mod cut;
pub mod decoder;
mod gathered;
mod linear;
mod load_error;
mod mlp;
mod packed_cache;
pub mod precision;
mod rope;
mod weights;

pub use arrivals::{ArrivalError, Arrivals, NothingToCome};
pub use config::{ConfigError, ModelConfig, RopeConfig};
pub use cut::Cut;
pub use decoder::{Decoder, Room};
pub use load_error::LoadError;
pub use packed_cache::{NoPackedCache, PackedCache};
pub use weights::WeightSource;
pub(crate) use weights::Weights;
