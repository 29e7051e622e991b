//! The last measurements of something, for people who look on: exact percentiles of what happened just now.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// From admission to the first token, over all models.
pub static FIRST_TOKEN: Recent = Recent::new();

const KEPT: usize = 512;

pub struct Recent {
    times: Mutex<VecDeque<Duration>>,
}

impl Recent {
    pub const fn new() -> Recent {
        Recent {
            times: Mutex::new(VecDeque::new()),
        }
    }

    pub fn add(&self, time: Duration) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() == KEPT {
            times.pop_front();
        }
        times.push_back(time);
    }

    /// By nearest rank, over at most the last 512; `None`: nothing was measured yet.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<Duration> = times.iter().copied().collect();
        drop(times);
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}

impl Default for Recent {
    fn default() -> Recent {
        Recent::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_ones_count() {
        let recent = Recent::new();
        assert_eq!(recent.percentile(50), None);
        (0..1000u64).for_each(|millis| recent.add(Duration::from_millis(millis)));
        assert_eq!(recent.percentile(100), Some(Duration::from_millis(999)));
        assert_eq!(recent.percentile(0), Some(Duration::from_millis(488)));
        assert_eq!(recent.percentile(50), Some(Duration::from_millis(743)));
    }
}
