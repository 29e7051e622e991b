//! The same plans with nothing between the stages: each takes as long in every stage as it did, and is with the next one at
//! once. What is lost here is lost to stages that are not equally fast, and to plans that are not equally long.

use proto::{Span, Time};

/// Its clock is behind the real one by what has been lost otherwise.
#[derive(Debug)]
pub(super) struct Unhindered {
    /// When each stage is done with what has landed so far.
    free_at: Vec<Time>,
    landed_at: Time,
    behind: Span,
}

impl Unhindered {
    pub fn new(stages: u32) -> Unhindered {
        Unhindered {
            free_at: vec![Time::ZERO; stages as usize],
            landed_at: Time::ZERO,
            behind: Span::ZERO,
        }
    }

    /// To be called before the first launch after a time without plans: both clocks are the same again.
    pub fn begin(&mut self, now: Time) {
        self.landed_at = now;
        self.behind = Span::ZERO;
    }

    /// When a plan is launched here that is launched `now`: as long after what landed last.
    pub fn launched_at(&self, now: Time) -> Time {
        Time(now.0.saturating_sub(self.behind.0))
    }

    /// The oldest plan, launched here at `launched_at`, has landed `now` after so long in each stage. Gives how long here
    /// after the one before it.
    pub fn land(&mut self, now: Time, launched_at: Time, parts: &[Span]) -> Span {
        let mut done_at = launched_at;
        for (free_at, part) in self.free_at.iter_mut().zip(parts) {
            done_at = done_at.max(*free_at) + *part;
            *free_at = done_at;
        }
        // Each stage has a clock of its own, which may go a little faster.
        done_at = done_at.min(now);
        self.behind = now.since(done_at);
        let took = done_at.since(self.landed_at);
        self.landed_at = done_at;
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Span::from_millis(ms)
    }

    fn parts(ms: [u64; 2]) -> [Span; 2] {
        ms.map(Span::from_millis)
    }

    #[test]
    fn what_is_lost_between_stages_does_not_count_and_waiting_for_a_slow_one_does() {
        let mut unhindered = Unhindered::new(2);
        unhindered.begin(at(100));
        let launched = [0, 0].map(|_| unhindered.launched_at(at(100)));
        // 2 ms on the way to each stage: 2 + 10 + 2 + 10.
        let took = unhindered.land(at(124), launched[0], &parts([10, 10]));
        assert_eq!(took, Span::from_millis(20));
        let third = unhindered.launched_at(at(124));
        assert_eq!(third, at(120));
        // The first stage takes 30 this time and is done at 140, the last at 150.
        let took = unhindered.land(at(154), launched[1], &parts([30, 10]));
        assert_eq!(took, Span::from_millis(30));
        // From 140 on, which is after its launch.
        let took = unhindered.land(at(166), third, &parts([10, 10]));
        assert_eq!(took, Span::from_millis(10));
    }

    #[test]
    fn it_is_never_later_than_the_truth_and_begins_anew_after_a_pause() {
        let mut unhindered = Unhindered::new(2);
        unhindered.begin(at(0));
        let launched_at = unhindered.launched_at(at(0));
        let took = unhindered.land(at(20), launched_at, &parts([15, 10]));
        assert_eq!(took, Span::from_millis(20), "a clock that goes too fast");
        unhindered.begin(at(1000));
        assert_eq!(unhindered.launched_at(at(1005)), at(1005));
        let took = unhindered.land(at(1040), at(1005), &parts([5, 5]));
        assert_eq!(took, Span::from_millis(15), "with the 5 before its launch");
    }
}
