//! Models that are deployed to the cluster rather than served by a node of its own accord.
//!
//! * [`profile`]: what this node can do, measured and told to the cluster.
//! * [`leader`]: beside the Raft leader, the placer that says which stage goes where.
//! * [`hosting`]: what was placed on this node, running.
//! * [`outlook`]: what that placer sees, asked for on any node.
//! * [`deploy`]: `cluster deploy`, as the node sees it.

pub mod deploy;
pub mod file;
pub mod hosting;
pub mod leader;
pub mod outlook;
mod plan;
pub mod profile;

pub use outlook::OutlookBoard;
