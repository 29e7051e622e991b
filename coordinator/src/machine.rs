//! The one trait of the architecture: a decider takes events and returns actions.

use proto::Time;

/// A pure state machine. No IO, no clock, no randomness but what was seeded, no dependence on hash order: the same
/// events at the same times give the same actions, in production and in the simulator alike.
pub trait Machine {
    type Event;
    type Action;

    /// One event in; actions are appended to `out`, in the order in which they must be performed.
    fn handle(&mut self, now: Time, event: Self::Event, out: &mut Vec<Self::Action>);

    /// Time has reached [`Machine::deadline`].
    fn wake(&mut self, now: Time, out: &mut Vec<Self::Action>);

    /// When to call [`Machine::wake`]. May change after any `handle` or `wake`, so ask again after each.
    fn deadline(&self) -> Option<Time>;
}
