//! What an engine counts, and when it tells.

use super::flight::Flight;
use super::scheduler::Draft;
use proto::engine::Load;
use proto::{Span, Time};

/// Reports are no closer than this, except when the engine becomes idle or stops being so.
const REPORT_EVERY: Span = Span::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Counters of [`Load`] alone; the rest of it is zero.
    counted: Load,
    reported_at: Option<Time>,
    /// Something may have changed since the last report.
    is_stale: bool,
    was_idle: Option<bool>,
}

impl Counters {
    pub fn load(&self) -> Load {
        self.counted
    }

    pub fn scheduled(&mut self, draft: &Draft) {
        self.counted.preemptions += draft.preempted.len() as u64;
        for admission in &draft.admitted {
            self.counted.prefix_queried_tokens += u64::from(admission.queried_tokens);
            self.counted.prefix_hit_tokens += u64::from(admission.hit_tokens);
        }
    }

    pub fn step_done(&mut self, flight: &Flight) {
        self.counted.steps += 1;
        self.counted.computed_tokens += flight.work().tokens;
        self.counted.sampled_tokens += flight.samples();
    }

    /// After an event: is a report due now?
    pub fn take_report(&mut self, now: Time, is_idle: bool) -> bool {
        let turned = self.was_idle != Some(is_idle);
        self.is_stale = true;
        let is_due = turned || self.report_due().is_none_or(|due| due <= now);
        if is_due {
            self.was_idle = Some(is_idle);
            self.reported_at = Some(now);
            self.is_stale = false;
        }
        is_due
    }

    pub fn report_due(&self) -> Option<Time> {
        self.reported_at
            .filter(|_| self.is_stale)
            .map(|reported_at| reported_at + REPORT_EVERY)
    }
}
