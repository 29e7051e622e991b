//! `cluster up`: from a configuration to a node that serves, and to its orderly end.

mod announce;
mod front;
mod keeping;
mod meeting;
mod model;
mod models;
mod naming;
mod node;
mod replicas;
mod shared;
mod signals;
mod waiting;

pub use announce::Output;
pub use model::open_store;
pub use node::run;
