//! How a node is set up: from what was typed (`low`) to what holds (`high`).
//!
//! A value comes from the command line, else the environment, else the TOML file, else the default, and
//! `cluster up --print-config` says which.

pub mod address;
pub mod byte_size;
pub mod file;
mod flag;
pub mod high;
pub mod low;
pub mod shown;

pub use high::{Config, ConfigError};
