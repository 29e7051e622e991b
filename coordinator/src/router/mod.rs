//! The router of one gateway node: who is admitted, which replica serves, what reaches the client in which order.

use proto::engine::{Load, ReplicaInfo};
use proto::request::{Finish, Refusal, Ticket};
use proto::{Attempt, Epoch, Position, ReplicaId, RequestId, StreamId};

#[derive(Clone, PartialEq, Debug)]
pub enum RouterEvent {
    /// A request with all its streams (choices); admitted or refused as a whole. `attempt` of the tickets is ignored.
    Arrived {
        request: RequestId,
        model: String,
        tickets: Vec<Ticket>,
    },
    ReplicaUp {
        model: String,
        info: ReplicaInfo,
    },
    /// The replica is gone: whatever it had is resubmitted elsewhere, or waits, or is refused.
    ReplicaDown {
        replica: ReplicaId,
        epoch: Epoch,
    },
    Load {
        replica: ReplicaId,
        epoch: Epoch,
        load: Load,
    },
    Delivered {
        replica: ReplicaId,
        epoch: Epoch,
        delivery: RouterDelivery,
    },
    Refused {
        replica: ReplicaId,
        epoch: Epoch,
        stream: StreamId,
        attempt: Attempt,
        refusal: Refusal,
    },
    /// The gateway itself has seen the end (a stop string), or its reader is too slow.
    Ended {
        stream: StreamId,
        finish: Finish,
    },
    ClientGone {
        request: RequestId,
    },
    /// Take nothing new.
    Drain,
}

#[derive(Clone, PartialEq, Debug)]
pub enum RouterAction {
    /// Send `prompt ++ delivered` of this stream, which the shell holds, under this ticket.
    Send {
        replica: ReplicaId,
        epoch: Epoch,
        ticket: Ticket,
    },
    Cancel {
        replica: ReplicaId,
        epoch: Epoch,
        stream: StreamId,
        attempt: Attempt,
    },
    /// The delivery just handled is the next of its stream: hand its contents to the client.
    Release {
        stream: StreamId,
        position: Option<Position>,
        finish: Option<Finish>,
    },
    /// The request is not taken: answer it with this.
    Refuse { request: RequestId, refusal: Refusal },
    /// A stream that was admitted can no longer be served.
    Abandon { stream: StreamId, refusal: Refusal },
    /// Everything admitted has ended, after a `Drain`.
    Drained,
}

/// A delivery as the router sees it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RouterDelivery {
    pub stream: StreamId,
    pub attempt: Attempt,
    pub position: Option<Position>,
    pub finish: Option<Finish>,
}
