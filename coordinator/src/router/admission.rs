//! Who gets in. Decided at arrival, for a request as a whole.

use super::stream::{Place, Stream};
use super::{Gate, RETRY_AFTER_LOSS, Replica, Router, RouterAction};
use crate::engine::{OUTPUT_TOKENS_EACH, retry_after};
use proto::request::{Refusal, Ticket};
use proto::{RequestId, Span, Time};

/// Sequences side by side, for an estimate where a replica does not run more.
const BATCH_ASSUMED: u32 = 32;
/// Where nothing is known about the load.
const RETRY_AFTER_UNKNOWN: Span = Span::from_secs(1);

impl Router {
    pub(super) fn arrived(
        &mut self,
        now: Time,
        request: RequestId,
        model: String,
        tickets: Vec<Ticket>,
        out: &mut Vec<RouterAction>,
    ) {
        // A request of that name is being served: this is an echo of it.
        if !self.streams_of(request).is_empty() {
            return;
        }
        match self.refusal(&model, &tickets) {
            Some(refusal) => out.push(RouterAction::Refuse { request, refusal }),
            None => tickets
                .into_iter()
                .for_each(|ticket| self.admit(now, request, &model, ticket)),
        }
    }

    fn admit(&mut self, now: Time, request: RequestId, model: &str, ticket: Ticket) {
        let id = ticket.stream;
        assert_eq!(id.request, request, "a ticket of another request");
        self.clocks.join(ticket.tenant);
        let before = self
            .streams
            .insert(id, Stream::new(ticket, model.to_owned(), now));
        assert!(before.is_none(), "stream {id} is twice in its request");
    }

    fn refusal(&self, model: &str, tickets: &[Ticket]) -> Option<Refusal> {
        if self.gate != Gate::Open {
            return Some(Refusal::Draining);
        }
        let Some(tokens_max) = self.serving(model).map(Replica::context_tokens_max).max() else {
            return Some(Refusal::Unavailable {
                retry_after: RETRY_AFTER_LOSS,
            });
        };
        too_long(tickets, tokens_max).or_else(|| self.busy(model, tickets))
    }

    fn busy(&self, model: &str, tickets: &[Ticket]) -> Option<Refusal> {
        let count = tickets.len() as u32;
        let tokens: u64 = tickets.iter().map(|ticket| u64::from(ticket.prompt_tokens)).sum();
        let of_tenant = tickets.first().map_or(0, |ticket| self.streams_of_tenant(ticket));
        // A lone request larger than the bound on tokens is taken: it could never be otherwise.
        let queued_tokens = self.queued_tokens();
        let is_full = self.streams() + count > self.config.streams_max
            || of_tenant + count > self.config.streams_per_tenant_max
            || (queued_tokens > 0 && queued_tokens + tokens > self.config.prompt_tokens_max);
        is_full.then(|| Refusal::Busy {
            retry_after: self.retry_after(model),
        })
    }

    fn streams_of_tenant(&self, ticket: &Ticket) -> u32 {
        self.streams
            .values()
            .filter(|stream| stream.tenant() == ticket.tenant)
            .count() as u32
    }

    /// Prompt tokens that no replica has begun to answer.
    fn queued_tokens(&self) -> u64 {
        self.streams
            .values()
            .filter(|stream| stream.is_unanswered())
            .map(|s| u64::from(s.prompt_tokens()))
            .sum()
    }

    /// When the least busy replica of the model will be through with what it has.
    fn retry_after(&self, model: &str) -> Span {
        let output_tokens_each = self.output_tokens_each(model);
        self.serving(model)
            .map(|replica| {
                let batch = replica.load.running.max(BATCH_ASSUMED);
                retry_after(&replica.load, batch, output_tokens_each)
            })
            .min()
            .unwrap_or(RETRY_AFTER_UNKNOWN)
    }

    /// What the model's streams have to come on average, none of them more than is usual: some end where they may.
    fn output_tokens_each(&self, model: &str) -> u32 {
        let streams = self.streams.values().filter(|stream| stream.model == model);
        let (count, tokens) = streams.fold((0, 0), |(count, tokens), stream| {
            let coming = stream.output_tokens_left().min(OUTPUT_TOKENS_EACH);
            (count + 1, tokens + u64::from(coming))
        });
        match count {
            0 => OUTPUT_TOKENS_EACH,
            count => tokens.div_ceil(count) as u32,
        }
    }

    pub(super) fn serving(&self, model: &str) -> impl Iterator<Item = &Replica> {
        self.replicas
            .values()
            .filter(move |replica| replica.model == model)
    }
}

impl Stream {
    fn is_unanswered(&self) -> bool {
        match self.place {
            Place::Queued { .. } => true,
            Place::Sent { answer, .. } => answer == super::Answer::Outstanding,
        }
    }
}

fn too_long(tickets: &[Ticket], tokens_max: u32) -> Option<Refusal> {
    tickets
        .iter()
        .map(|ticket| ticket.prompt_tokens.saturating_add(ticket.max_new_tokens.min(1)))
        .find(|tokens| *tokens > tokens_max)
        .map(|tokens| Refusal::TooLong { tokens, tokens_max })
}
