//! What the node says about itself: logs on stderr, numbers on `/metrics`, spans to a collector that is asked for.

pub mod cluster_metrics;
pub mod engine_metrics;
pub mod logs;
pub mod notes;
pub mod otlp;
pub mod parts;
pub mod recent;
pub mod recorder;
pub mod request_metrics;
pub mod spans;
pub mod trace;
