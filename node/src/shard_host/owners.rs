//! Whose a stream is: who submitted it hears of it.

use proto::{Attempt, NodeId, StreamId};
use std::collections::BTreeMap;

/// The streams of gateways on other nodes that one engine has, each in the attempt that was submitted last.
///
/// What an engine says of an earlier attempt comes after the next one was submitted: it ends nothing, and nobody has to
/// hear it. A stream without an owner falls to the router of the engine's own node, which drops what it does not know.
#[derive(Debug, Default)]
pub struct Owners(BTreeMap<StreamId, Owner>);

#[derive(Clone, Copy, Debug)]
struct Owner {
    gateway: NodeId,
    attempt: Attempt,
}

impl Owners {
    pub fn submitted(&mut self, gateway: NodeId, stream: StreamId, attempt: Attempt) {
        self.0.insert(stream, Owner { gateway, attempt });
    }

    /// Whom the news of this attempt are for.
    pub fn of(&self, stream: StreamId, attempt: Attempt) -> Option<NodeId> {
        self.0
            .get(&stream)
            .filter(|owner| owner.attempt == attempt)
            .map(|owner| owner.gateway)
    }

    /// Nothing more is to be said of this attempt.
    pub fn ended(&mut self, stream: StreamId, attempt: Attempt) {
        if self.0.get(&stream).is_some_and(|owner| owner.attempt == attempt) {
            self.0.remove(&stream);
        }
    }

    /// The gateway has gone. Gives what it had.
    pub fn left(&mut self, gateway: NodeId) -> Vec<(StreamId, Attempt)> {
        let gone = self.0.extract_if(.., |_, owner| owner.gateway == gateway);
        gone.map(|(stream, owner)| (stream, owner.attempt)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::RequestId;

    const GATEWAY: NodeId = NodeId(2);
    const OTHER: NodeId = NodeId(3);

    fn stream(request: u128) -> StreamId {
        StreamId {
            request: RequestId(request),
            choice: 0,
        }
    }

    #[test]
    fn the_end_of_an_earlier_attempt_does_not_end_the_next_one() {
        let mut owners = Owners::default();
        owners.submitted(GATEWAY, stream(1), Attempt(0));
        assert_eq!(owners.left(GATEWAY), [(stream(1), Attempt(0))]);
        owners.submitted(GATEWAY, stream(1), Attempt(2));
        assert_eq!(owners.of(stream(1), Attempt(0)), None, "nobody waits for it");
        owners.ended(stream(1), Attempt(0));
        assert_eq!(owners.of(stream(1), Attempt(2)), Some(GATEWAY));
        owners.ended(stream(1), Attempt(2));
        assert_eq!(owners.of(stream(1), Attempt(2)), None);
    }

    #[test]
    fn a_gateway_that_leaves_takes_its_own_along() {
        let mut owners = Owners::default();
        owners.submitted(GATEWAY, stream(1), Attempt(0));
        owners.submitted(OTHER, stream(2), Attempt(1));
        owners.submitted(GATEWAY, stream(3), Attempt(4));
        assert_eq!(
            owners.left(GATEWAY),
            [(stream(1), Attempt(0)), (stream(3), Attempt(4))]
        );
        assert_eq!(owners.left(GATEWAY), []);
        assert_eq!(owners.of(stream(2), Attempt(1)), Some(OTHER));
    }
}
