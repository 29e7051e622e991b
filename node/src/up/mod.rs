//! `cluster up`: from a configuration to a node that serves, and to its orderly end.

mod announce;
mod model;
mod node;
mod signals;
mod tokenizer_source;

pub use announce::Output;
pub use model::open_store;
pub use node::run;
