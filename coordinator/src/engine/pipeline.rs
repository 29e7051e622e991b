//! The plans under way: one for each stage when all are busy.
//!
//! Every stage computes plans in the order in which they were made, so they return in that order too.

use super::flight::Flight;
use super::unhindered::Unhindered;
use proto::engine::PipelineUse;
use proto::step::StepDone;
use proto::{SequenceId, Span, Time};
use std::collections::VecDeque;
use std::slice;

#[derive(Debug)]
pub(super) struct Pipeline {
    stages: u32,
    /// Oldest first; never more than there are stages.
    launched: VecDeque<Launched>,
    usage: PipelineUse,
    /// Until when `usage` is counted. Of no meaning while nothing is under way.
    counted_until: Time,
    unhindered: Unhindered,
}

#[derive(Debug)]
struct Launched {
    flight: Flight,
    /// On the clock of [`Unhindered`].
    at: Time,
}

impl Pipeline {
    pub fn new(stages: u32) -> Pipeline {
        Pipeline {
            stages,
            launched: VecDeque::new(),
            usage: PipelineUse {
                computed: vec![Span::ZERO; stages as usize],
                ..PipelineUse::default()
            },
            counted_until: Time::ZERO,
            unhindered: Unhindered::new(stages),
        }
    }

    pub fn usage(&self) -> &PipelineUse {
        &self.usage
    }

    pub fn has_room(&self) -> bool {
        self.in_flight() < self.stages
    }

    pub fn is_empty(&self) -> bool {
        self.launched.is_empty()
    }

    pub fn in_flight(&self) -> u32 {
        self.launched.len() as u32
    }

    pub fn launch(&mut self, now: Time, flight: Flight) {
        assert!(self.has_room(), "more plans than stages");
        if self.is_empty() {
            self.counted_until = now;
            self.unhindered.begin(now);
        }
        let at = self.unhindered.launched_at(now);
        self.launched.push_back(Launched { flight, at });
    }

    /// The oldest plan, if that is the one that returned.
    pub fn land(&mut self, now: Time, done: &StepDone) -> Option<Flight> {
        let oldest = self
            .launched
            .pop_front_if(|oldest| oldest.flight.step == done.step)?;
        let parts = match self.stages {
            1 => slice::from_ref(&done.elapsed),
            _ => &done.parts,
        };
        assert_eq!(parts.len(), self.usage.computed.len(), "one part for each stage");
        self.usage.occupied += now.since(self.counted_until);
        self.usage.least += self.unhindered.land(now, oldest.at, parts);
        for (computed, part) in self.usage.computed.iter_mut().zip(parts) {
            *computed += *part;
        }
        self.counted_until = now;
        Some(oldest.flight)
    }

    /// The slices under way of a sequence, oldest first: where they begin and end.
    pub fn spans_of(&self, sequence: SequenceId) -> impl Iterator<Item = (u32, u32)> {
        self.launched
            .iter()
            .filter_map(move |launched| launched.flight.span_of(sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::StepId;

    fn at(ms: u64) -> Time {
        Time::ZERO + Span::from_millis(ms)
    }

    #[test]
    fn time_counts_while_something_is_under_way_and_only_once() {
        let mut pipeline = Pipeline::new(2);
        let flight = |step| Flight::new(StepId(step), &[]);
        let done = |step| StepDone {
            step: StepId(step),
            elapsed: Span::from_millis(10),
            parts: [4, 6].map(Span::from_millis).to_vec(),
            ..StepDone::default()
        };
        pipeline.launch(at(100), flight(0));
        pipeline.launch(at(105), flight(1));
        assert!(!pipeline.has_room());
        assert!(pipeline.land(at(110), &done(1)).is_none(), "not the oldest");
        assert!(pipeline.land(at(110), &done(0)).is_some());
        assert!(pipeline.land(at(117), &done(1)).is_some());
        // Nothing is under way for a second; then one plan alone.
        pipeline.launch(at(1117), flight(2));
        assert!(pipeline.land(at(1130), &done(2)).is_some());
        let expected = PipelineUse {
            occupied: Span::from_millis(30),
            least: Span::from_millis(10 + 6 + 10),
            computed: [12, 18].map(Span::from_millis).to_vec(),
        };
        assert_eq!(*pipeline.usage(), expected);
        assert!((pipeline.usage().bubble() - 0.5).abs() < 1e-12);
        assert_eq!(Pipeline::new(2).usage().bubble(), 0.0);
    }

    #[test]
    fn where_there_is_one_stage_it_has_computed_all() {
        let mut pipeline = Pipeline::new(1);
        pipeline.launch(at(100), Flight::new(StepId(0), &[]));
        let done = StepDone {
            elapsed: Span::from_millis(10),
            ..StepDone::default()
        };
        assert!(pipeline.land(at(112), &done).is_some());
        let usage = pipeline.usage();
        assert_eq!(usage.computed, [Span::from_millis(10)]);
        assert_eq!(
            (usage.occupied, usage.least),
            (Span::from_millis(12), done.elapsed)
        );
    }
}
