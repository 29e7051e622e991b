//! Pure deciders: what should happen, never doing it.
//!
//! * [`router::Router`], one per gateway node: admission, which replica, in-order delivery, resubmission after a loss.
//! * [`engine::Engine`], one per replica: continuous batching, block tables, preemption, prefix reuse.
//! * [`cluster_state::ClusterState`]: what the log of committed commands means.
//! * [`placer::Placer`], beside the leader: which nodes carry which layers of the models deployed to the cluster.
//! * [`voters`]: which members vote on that log. [`rotation`]: whose signatures they believe, while that changes.
//!
//! No async, no IO, no clock, no unsafe, no hash order. Production and the simulator run this same code.
#![forbid(unsafe_code)]

pub mod machine;

pub mod cluster_state;
pub mod engine;
pub mod placer;
pub mod rotation;
pub mod router;
pub mod voters;

pub mod cost;
mod fairness;

pub use machine::Machine;
