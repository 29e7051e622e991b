//! What the node says about itself: logs on stderr, numbers on `/metrics`.

pub mod engine_metrics;
pub mod logs;
pub mod recorder;
