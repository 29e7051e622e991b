//! The child process that computes: one for each replica, so that a fault in a kernel never takes the node with it.
//!
//! The node starts `cluster shard-host`, writes a [`setup::ShardSetup`] and then [`proto::engine::ToEngine`] frames to
//! its stdin, and reads [`proto::engine::FromEngine`] frames from its stdout; stderr carries logs. The child ends when
//! its stdin ends, when the node's starting thread ends, or when it has nothing left to be.
//!
//! * Inside the child: [`child`] (the process), [`prepare`] (file and memory), [`landed`] (what of the file can be read while it
//!   is being fetched), [`verifier`] (that it is what it must be), [`ranks`] (threads that compute),
//!   [`exercise`] and [`warm_up`] (steps to measure them by), [`engine_loop`] (the decider between mailbox and ranks), [`grammars`]
//!   (compiled beside it), [`stage`] (where the model goes over several nodes).
//! * Inside the node: [`process`] (starting and ending one), [`ear`] (hearing it, and that it hangs), [`supervisor`] (keeping one
//!   alive), [`epochs`] (where those of a run begin), [`coming`] (telling it what has landed), [`hub`] (who hears what it says); [`stage_keeper`] and [`pipeline`] (stages
//!   on several nodes).

pub mod child;
pub mod coming;
pub mod ear;
pub mod engine_loop;
pub mod epochs;
pub mod exercise;
pub mod frames;
pub mod grammars;
pub mod hub;
pub mod landed;
pub mod owners;
pub(crate) mod packed;
pub mod pipeline;
pub mod prepare;
pub mod process;
pub mod ranks;
pub mod setup;
pub mod stage;
pub mod stage_keeper;
pub mod supervisor;
pub mod verifier;
pub mod warm_up;
