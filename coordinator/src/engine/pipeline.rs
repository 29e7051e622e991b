//! The plans under way: one for each stage when all are busy.
//!
//! Every stage computes plans in the order in which they were made, so they return in that order too.

use super::flight::Flight;
use proto::engine::PipelineUse;
use proto::{SequenceId, Span, StepId, Time};
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Pipeline {
    stages: u32,
    /// Oldest first; never more than there are stages.
    flights: VecDeque<Flight>,
    usage: PipelineUse,
    /// Until when `usage` is counted. Of no meaning while nothing is under way.
    counted_until: Time,
}

impl Pipeline {
    pub fn new(stages: u32) -> Pipeline {
        Pipeline {
            stages,
            flights: VecDeque::new(),
            usage: PipelineUse {
                stages,
                occupied: Span::ZERO,
                computed: Span::ZERO,
            },
            counted_until: Time::ZERO,
        }
    }

    pub fn usage(&self) -> PipelineUse {
        self.usage
    }

    pub fn has_room(&self) -> bool {
        self.in_flight() < self.stages
    }

    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub fn in_flight(&self) -> u32 {
        self.flights.len() as u32
    }

    pub fn launch(&mut self, now: Time, flight: Flight) {
        assert!(self.has_room(), "more plans than stages");
        if self.is_empty() {
            self.counted_until = now;
        }
        self.flights.push_back(flight);
    }

    /// The oldest plan, if that is the one that returned.
    pub fn land(&mut self, now: Time, step: StepId, elapsed: Span) -> Option<Flight> {
        let flight = self.flights.pop_front_if(|flight| flight.step == step)?;
        self.usage.occupied += now.since(self.counted_until);
        self.usage.computed += elapsed;
        self.counted_until = now;
        Some(flight)
    }

    /// The slices under way of a sequence, oldest first: where they begin and end.
    pub fn spans_of(&self, sequence: SequenceId) -> impl Iterator<Item = (u32, u32)> {
        self.flights
            .iter()
            .filter_map(move |flight| flight.span_of(sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Span::from_millis(ms)
    }

    #[test]
    fn time_counts_while_something_is_under_way_and_only_once() {
        let mut pipeline = Pipeline::new(2);
        let flight = |step| Flight::new(StepId(step), &[]);
        let elapsed = Span::from_millis(10);
        pipeline.launch(at(100), flight(0));
        pipeline.launch(at(105), flight(1));
        assert!(!pipeline.has_room());
        assert!(
            pipeline.land(at(110), StepId(1), elapsed).is_none(),
            "not the oldest"
        );
        assert!(pipeline.land(at(110), StepId(0), elapsed).is_some());
        assert!(pipeline.land(at(115), StepId(1), elapsed).is_some());
        // Nothing is under way for a second; then one plan alone.
        pipeline.launch(at(1115), flight(2));
        assert!(pipeline.land(at(1125), StepId(2), elapsed).is_some());
        let usage = pipeline.usage();
        let expected = (Span::from_millis(25), Span::from_millis(30));
        assert_eq!((usage.occupied, usage.computed), expected);
        assert!((usage.bubble() - 0.4).abs() < 1e-12, "{}", usage.bubble());
        assert_eq!(Pipeline::new(2).usage().bubble(), 0.0);
    }
}
