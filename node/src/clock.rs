//! The only clock: deciders are told what time it is.

use proto::Time;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Counts from its creation. Copies agree with each other; clocks of two processes do not.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    pub fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Seconds since 1970; 0 on a machine whose clock stands before that.
pub fn unix_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
