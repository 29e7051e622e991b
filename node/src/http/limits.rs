//! The bounds of the HTTP side.

use super::serve::SeatsMax;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Limits {
    pub body_bytes_max: usize,
    /// The same for `/tokenize` and `/detokenize`: in JSON that escapes all beyond ASCII, text takes three times its bytes.
    pub text_body_bytes_max: usize,
    /// A body that takes longer to arrive is given up.
    pub body_wait_max: Duration,
    /// How long a body may arrive below `bytes_per_sec_min` on average before it is given up.
    pub body_grace: Duration,
    /// Below this nobody is worth a connection: the least average rate of bodies that arrive, and of answers that the
    /// peer has fallen behind with.
    pub bytes_per_sec_min: u32,
    /// What is read, and waited for, of a body that its handler left, before the answer goes out, so that the connection
    /// can go on.
    pub unread_bytes_max: u64,
    pub unread_wait_max: Duration,
    /// Where that does not end the body, how long the peer gets after the answer to finish sending before the close.
    pub linger_max: Duration,
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// From the first byte of a request's head to its last; also for a TLS handshake.
    pub header_wait_max: Duration,
    /// How long a connection without a request is kept.
    pub idle_wait_max: Duration,
    /// A connection whose peer takes nothing for this long, while there is something for it, is closed.
    pub write_wait_max: Duration,
    /// Connections at the same time.
    pub seats: SeatsMax,
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
            text_body_bytes_max: 16 << 20,
            body_wait_max: Duration::from_secs(120),
            body_grace: Duration::from_secs(10),
            bytes_per_sec_min: 1 << 10,
            unread_bytes_max: 256 << 10,
            unread_wait_max: Duration::from_millis(100),
            linger_max: Duration::from_secs(2),
            header_bytes_max: 64 << 10,
            headers_max: 100,
            header_wait_max: Duration::from_secs(10),
            idle_wait_max: Duration::from_secs(60),
            write_wait_max: Duration::from_secs(30),
            seats: SeatsMax {
                total: 16_384,
                per_neighbourhood: 1024,
                per_loopback: 16_384,
            },
            streams_max: 128,
            text_work_max: 8,
            keep_alive: Duration::from_secs(10),
            drain_max: Duration::from_secs(4),
            metrics: MetricsAccess::Everyone,
        }
    }
}
