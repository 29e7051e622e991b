//! What a router knows of one admitted stream.

use super::replica::Expected;
use proto::request::{PrefixUse, Ticket};
use proto::{Attempt, BlockHash, Epoch, Position, ReplicaId, StreamId, TenantId, Time};

/// The life of a stream:
///
/// 1. **Queued**: admitted, not sent.
/// 2. **Sent**, unanswered: it holds a credit of its replica.
/// 3. **Sent**, answered: its replica has delivered something.
/// 4. Its replica is lost or refuses it: **Queued** again with the next attempt, ahead of new ones.
/// 5. It ends: the router forgets it.
#[derive(Debug)]
pub(super) struct Stream {
    /// As it arrived; attempts are derived from it.
    ticket: Ticket,
    pub model: String,
    pub place: Place,
    attempt: Attempt,
    /// Attempts that were lost since the client got its last token.
    losses: u32,
    /// Output tokens handed to the client: the only position taken next.
    delivered: u32,
    /// The arithmetic that made the first token; another may continue differently.
    pub numerics: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Queued {
        since: Time,
    },
    Sent {
        replica: ReplicaId,
        epoch: Epoch,
        answer: Answer,
        expected: Expected,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Outstanding,
    Begun,
}

/// How the position of a delivery relates to what the client has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Next,
    Repeat,
    Gap,
}

impl Stream {
    pub fn new(ticket: Ticket, model: String, now: Time) -> Stream {
        Stream {
            ticket,
            model,
            place: Place::Queued { since: now },
            attempt: Attempt(0),
            losses: 0,
            delivered: 0,
            numerics: None,
        }
    }

    pub fn id(&self) -> StreamId {
        self.ticket.stream
    }

    pub fn tenant(&self) -> TenantId {
        self.ticket.tenant
    }

    /// How many more tokens the client may still get.
    pub fn output_tokens_left(&self) -> u32 {
        self.ticket.max_new_tokens.saturating_sub(self.delivered)
    }

    pub fn deadline(&self) -> Option<Time> {
        self.ticket.deadline
    }

    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    pub fn losses(&self) -> u32 {
        self.losses
    }

    pub fn is_resumed(&self) -> bool {
        self.attempt > Attempt(0)
    }

    /// Everything that was asked for has been delivered.
    pub fn is_complete(&self) -> bool {
        self.delivered > 0 && self.delivered >= self.ticket.max_new_tokens
    }

    pub fn prompt_tokens(&self) -> u32 {
        self.ticket.prompt_tokens.saturating_add(self.delivered)
    }

    /// The names of its prompt's full blocks.
    pub fn chain(&self) -> &[BlockHash] {
        &self.ticket.block_hashes
    }

    /// A replica may compute the client's prompt and what was delivered of the answer.
    pub fn ticket(&self) -> Ticket {
        Ticket {
            attempt: self.attempt,
            prompt_tokens: self.prompt_tokens(),
            resumed_tokens: self.ticket.resumed_tokens + self.delivered,
            max_new_tokens: self.ticket.max_new_tokens - self.delivered,
            prefix: self.prefix(),
            ..self.ticket.clone()
        }
    }

    /// Scores of the prompt come before or with the first token, so that later nobody wants them.
    pub fn prefix(&self) -> PrefixUse {
        if self.delivered > 0 {
            PrefixUse::Reuse
        } else {
            self.ticket.prefix
        }
    }

    pub fn order_of(&self, position: Option<Position>) -> Order {
        let next = self.ticket.resumed_tokens + self.delivered;
        match position {
            None => Order::Next,
            Some(Position(position)) if position == next => Order::Next,
            Some(Position(position)) if position < next => Order::Repeat,
            Some(_) => Order::Gap,
        }
    }

    pub fn count_delivered(&mut self, position: Option<Position>) {
        if position.is_some() {
            self.delivered += 1;
            self.losses = 0;
        }
    }

    /// The attempt is lost; the next one continues after what was delivered.
    pub fn requeue(&mut self, now: Time) {
        self.attempt = Attempt(self.attempt.0 + 1);
        self.losses += 1;
        self.place = Place::Queued { since: now };
    }
}
