//! A shard host that holds a part of a model: a stage of a pipeline over several nodes.
//!
//! The last stage is the head: it has the engine, plans, and samples. It opens a stream to every other stage, over which
//! its plans go, and each stage opens one to the next, over which residuals go. Both speak from process to process, as
//! the nodes that they belong to; the nodes only say where they are.
//!
//! The end of any stream is the end of the epoch. The head then ends, and is started again; the others keep their
//! weights and wait for its next epoch.

pub mod follower;
pub mod head;
mod link_source;
mod links;
mod port;
mod ports;
mod residual;
mod stage_loop;

pub use link_source::LinkSource;
pub use links::LinkTrust;
pub use ports::{NOT_THERE_YET, StagePorts};
pub use residual::Residual;

#[cfg(test)]
mod tests;
