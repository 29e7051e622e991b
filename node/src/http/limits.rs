//! The bounds of the HTTP side.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Limits {
    pub body_bytes_max: usize,
    /// A body that takes longer to arrive is given up.
    pub body_wait_max: Duration,
    pub header_bytes_max: usize,
    /// The next request head has to be complete this long after the connection was free for it; so it also bounds how
    /// long an idle connection is kept.
    pub header_wait_max: Duration,
    /// A connection whose peer acknowledges nothing, or leaves no room for more, for this long is closed.
    pub write_wait_max: Duration,
    pub connections_max: usize,
    /// `n`.
    pub choices_max: u32,
    /// All choices of all prompts of one request.
    pub streams_max: u32,
    /// Requests whose text is tokenized or rendered at the same time.
    pub text_work_max: usize,
    /// How often a silent stream says that it is alive.
    pub keep_alive: Duration,
    /// How long `serve` lets running requests finish once it was told to end.
    pub drain_max: Duration,
    pub metrics: MetricsAccess,
}

/// Who may read `/metrics`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricsAccess {
    Everyone,
    WithKey,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes_max: 4 << 20,
            body_wait_max: Duration::from_secs(60),
            header_bytes_max: 64 << 10,
            header_wait_max: Duration::from_secs(60),
            write_wait_max: Duration::from_secs(60),
            connections_max: 1024,
            choices_max: 64,
            streams_max: 128,
            text_work_max: 8,
            keep_alive: Duration::from_secs(10),
            drain_max: Duration::from_secs(4),
            metrics: MetricsAccess::Everyone,
        }
    }
}
