//! What only the operating system can give. The one place in this crate where `unsafe` may stand.

pub mod affinity;
pub mod death;
pub mod files;
pub mod map;
pub mod memory;
pub mod port;
pub mod priority;
pub mod watch;
