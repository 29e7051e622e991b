//! How long a connection may stay as it is. Decides only; time comes in as an argument.

use crate::http::limits::Limits;
use std::time::{Duration, Instant};

/// What a connection is doing, and since when.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    phase: Phase,
    blocked: Option<Blocked>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Between requests.
    Idle { since: Instant },
    /// A head has begun to arrive.
    Head { since: Instant },
    /// A request is being served; bodies have bounds of their own.
    Serving,
    /// The answer is written, perhaps not yet sent.
    Sending,
}

/// The peer takes nothing more at the moment.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    until: Instant,
}

/// What the peer was too slow at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TooSlow {
    Idle,
    Head,
    Reading,
}

impl TooSlow {
    pub fn name(self) -> &'static str {
        match self {
            TooSlow::Idle => "idle",
            TooSlow::Head => "head",
            TooSlow::Reading => "reading",
        }
    }
}

impl Pace {
    pub fn idle(now: Instant) -> Pace {
        Pace {
            phase: Phase::Idle { since: now },
            blocked: None,
        }
    }

    /// Bytes came in.
    pub fn heard(&mut self, now: Instant) {
        match self.phase {
            Phase::Idle { .. } => self.phase = Phase::Head { since: now },
            Phase::Head { .. } | Phase::Serving | Phase::Sending => {}
        }
    }

    /// The last answer is out, and no next request has been read yet.
    pub fn awaits_request(&self) -> bool {
        match self.phase {
            Phase::Idle { .. } | Phase::Head { .. } => true,
            Phase::Serving | Phase::Sending => false,
        }
    }

    pub fn serve(&mut self) {
        self.phase = Phase::Serving;
    }

    pub fn served(&mut self) {
        self.phase = Phase::Sending;
    }

    /// The peer has no room.
    pub fn block(&mut self, now: Instant, limits: &Limits) {
        let until = now + limits.write_wait_max;
        self.blocked.get_or_insert(Blocked { until });
    }

    /// The peer made room for `bytes`. While it is behind, what it takes buys time at the least rate: one that takes a
    /// byte now and then is cut off.
    pub fn wrote(&mut self, bytes: usize, now: Instant, limits: &Limits) {
        if let Some(blocked) = &mut self.blocked {
            let bought = blocked.until + limits.time_for(bytes);
            blocked.until = bought.min(now + limits.write_wait_max);
        }
    }

    /// Everything has been taken. `true`: so the request is over, and the next one is waited for.
    pub fn flushed(&mut self, now: Instant) -> bool {
        self.blocked = None;
        let over = self.phase == Phase::Sending;
        if over {
            self.phase = Phase::Idle { since: now };
        }
        over
    }

    /// When the connection is to be cut off if nothing changes until then, and for what.
    pub fn due(&self, limits: &Limits) -> Option<(Instant, TooSlow)> {
        let phase = match self.phase {
            Phase::Idle { since } => Some((since + limits.idle_wait_max, TooSlow::Idle)),
            Phase::Head { since } => Some((since + limits.header_wait_max, TooSlow::Head)),
            Phase::Serving | Phase::Sending => None,
        };
        let blocked = self.blocked.map(|blocked| (blocked.until, TooSlow::Reading));
        phase.into_iter().chain(blocked).min_by_key(|(due, _)| *due)
    }
}

impl Limits {
    /// How long this many bytes may take at the least rate.
    pub fn time_for(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_sec_min as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            idle_wait_max: Duration::from_secs(60),
            header_wait_max: Duration::from_secs(10),
            write_wait_max: Duration::from_secs(30),
            bytes_per_sec_min: 1000,
            ..Limits::default()
        }
    }

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_head_is_due_from_its_first_byte_and_not_from_later_ones() {
        let start = Instant::now();
        let mut pace = Pace::idle(start);
        assert_eq!(pace.due(&limits()), Some((start + secs(60), TooSlow::Idle)));
        pace.heard(start + secs(50));
        pace.heard(start + secs(55));
        assert_eq!(pace.due(&limits()), Some((start + secs(60), TooSlow::Head)));
        pace.serve();
        assert_eq!(pace.due(&limits()), None);
    }

    #[test]
    fn a_connection_is_idle_again_when_its_answer_is_out() {
        let start = Instant::now();
        let mut pace = Pace::idle(start);
        pace.serve();
        assert!(!pace.flushed(start), "the answer is still being made");
        pace.served();
        pace.block(start, &limits());
        assert_eq!(pace.due(&limits()), Some((start + secs(30), TooSlow::Reading)));
        assert!(pace.flushed(start + secs(5)));
        assert_eq!(pace.due(&limits()), Some((start + secs(65), TooSlow::Idle)));
    }

    #[test]
    fn a_peer_that_sips_is_cut_off_and_one_that_drinks_is_not() {
        let start = Instant::now();
        for (sip, survives) in [(500, false), (2000, true)] {
            let mut pace = Pace::idle(start);
            pace.serve();
            pace.block(start, &limits());
            let alive = (1..200).all(|second| {
                let now = start + secs(second);
                let (due, why) = pace.due(&limits()).unwrap();
                assert_eq!(why, TooSlow::Reading);
                pace.wrote(sip, now, &limits());
                pace.block(now, &limits());
                due > now
            });
            assert_eq!(alive, survives, "{sip} bytes a second");
        }
    }
}
