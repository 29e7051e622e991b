//! The engine of one replica: what each step computes, and who owns which page of KV cache.

use proto::engine::Load;
use proto::request::{Finish, Refusal, Ticket};
use proto::step::{StepDone, StepPlan};
use proto::{Attempt, Position, SequenceId, StreamId};

/// What an engine hears. Tokens stay with the shell around it.
#[derive(Clone, PartialEq, Debug)]
pub enum EngineEvent {
    Submit(Ticket),
    Cancel {
        stream: StreamId,
        attempt: Attempt,
    },
    StepDone(StepDone),
    /// Take nothing new; say `Drained` once nothing runs.
    Drain,
}

/// What an engine wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum EngineAction {
    /// From now on the shell keeps the stream's tokens under this name, until a plan forgets it.
    Admitted {
        stream: StreamId,
        attempt: Attempt,
        sequence: SequenceId,
    },
    Refuse {
        stream: StreamId,
        attempt: Attempt,
        refusal: Refusal,
    },
    /// Compute this. The next plan comes after its `StepDone`.
    Run(StepPlan),
    Deliver(EngineDelivery),
    Report(Load),
    Drained,
}

/// News of a stream, without the contents: the shell adds token and scores.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EngineDelivery {
    pub stream: StreamId,
    pub attempt: Attempt,
    pub sequence: SequenceId,
    /// Set with a stream's first delivery.
    pub cached_tokens: Option<u32>,
    /// Where the token just sampled belongs; `None` when there is none with this delivery.
    pub position: Option<Position>,
    pub finish: Option<Finish>,
}
