//! The second ring: real members, openraft and its store, over a network and disks in memory that a seed breaks, with a
//! clock that goes on when nothing is left to do.
//!
//! A seed decides every fault, every delay and everything that clients want. It does not decide the order of what is ready
//! at the same instant, nor the election timeouts: openraft and tokio draw those from the operating system, which can be
//! given a seed only by replacing libc's `getrandom` (unsafe) or with `--cfg tokio_unstable`. So a seed that fails repeats
//! its faults, not its every step; run it some times.

mod chaos;
mod client;
mod cluster;
mod disks;
mod drive;
mod failover;
mod histories;
mod joining;
mod killed;
mod membership;
mod network;
mod partitions;
mod quorum;
mod restarts;
mod set_back;
mod snapshots;
pub mod stoppable;
mod stops;
mod suite;
mod watch;
mod written;
