pub mod config;

pub use config::{ConfigError, ModelConfig, RopeConfig};
