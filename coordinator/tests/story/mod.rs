//! A router, a virtual clock and short words for what happens.
#![allow(dead_code)] // Each test binary uses its own part.

use coordinator::Machine;
use coordinator::router::{Router, RouterAction, RouterConfig, RouterDelivery, RouterEvent};
use proto::engine::ReplicaInfo;
use proto::request::{Finish, PrefixUse, Refusal, ServiceClass, Ticket};
use proto::{AdapterId, Attempt, Epoch, Position, ReplicaId, RequestId, Span, StreamId, TenantId, Time};

pub struct Story {
    pub router: Router,
    pub now: Time,
}

impl Story {
    pub fn new(config: RouterConfig) -> Story {
        Story {
            router: Router::new(config),
            now: Time::ZERO,
        }
    }

    /// With one replica up.
    pub fn serving() -> Story {
        let mut story = Story::new(RouterConfig::default());
        story.up(0, 1);
        story
    }

    pub fn event(&mut self, event: RouterEvent) -> Vec<RouterAction> {
        let mut out = Vec::new();
        self.router.handle(self.now, event, &mut out);
        self.router.check();
        out
    }

    pub fn pass(&mut self, span: Span) -> Vec<RouterAction> {
        self.now = self.now + span;
        let mut out = Vec::new();
        self.router.wake(self.now, &mut out);
        self.router.check();
        out
    }

    pub fn up(&mut self, replica: u32, epoch: u64) -> Vec<RouterAction> {
        self.event(RouterEvent::ReplicaUp {
            model: "m".into(),
            info: info(replica, epoch),
        })
    }

    pub fn down(&mut self, replica: u32, epoch: u64) -> Vec<RouterAction> {
        self.event(RouterEvent::ReplicaDown {
            replica: ReplicaId(replica),
            epoch: Epoch(epoch),
        })
    }

    pub fn arrive(&mut self, request: u128, choices: u32) -> Vec<RouterAction> {
        self.arrive_with((0..choices).map(|choice| ticket(request, choice)).collect())
    }

    pub fn arrive_with(&mut self, tickets: Vec<Ticket>) -> Vec<RouterAction> {
        let request = tickets[0].stream.request;
        self.event(RouterEvent::Arrived {
            request,
            model: "m".into(),
            tickets,
        })
    }

    pub fn deliver(&mut self, at: At, position: Option<u32>, finish: Option<Finish>) -> Vec<RouterAction> {
        self.deliver_cached(at, position, None, finish)
    }

    pub fn deliver_cached(
        &mut self,
        at: At,
        position: Option<u32>,
        cached_tokens: Option<u32>,
        finish: Option<Finish>,
    ) -> Vec<RouterAction> {
        let At {
            replica,
            epoch,
            stream,
            attempt,
        } = at;
        let delivery = RouterDelivery {
            stream,
            attempt: Attempt(attempt),
            position: position.map(Position),
            cached_tokens,
            finish,
        };
        self.event(RouterEvent::Delivered {
            replica: ReplicaId(replica),
            epoch: Epoch(epoch),
            delivery,
        })
    }

    pub fn refuse(&mut self, at: At, refusal: Refusal) -> Vec<RouterAction> {
        let At {
            replica,
            epoch,
            stream,
            attempt,
        } = at;
        self.event(RouterEvent::Refused {
            replica: ReplicaId(replica),
            epoch: Epoch(epoch),
            stream,
            attempt: Attempt(attempt),
            refusal,
        })
    }
}

/// From whom, about what.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub replica: u32,
    pub epoch: u64,
    pub stream: StreamId,
    pub attempt: u32,
}

pub fn at(replica: u32, epoch: u64, request: u128, attempt: u32) -> At {
    At {
        replica,
        epoch,
        stream: stream(request, 0),
        attempt,
    }
}

pub fn stream(request: u128, choice: u32) -> StreamId {
    StreamId {
        request: RequestId(request),
        choice,
    }
}

pub fn info(replica: u32, epoch: u64) -> ReplicaInfo {
    ReplicaInfo {
        replica: ReplicaId(replica),
        epoch: Epoch(epoch),
        context_tokens_max: 100,
        block_tokens: 16,
        blocks: 100,
        numerics: 0,
        description: String::new(),
    }
}

pub fn ticket(request: u128, choice: u32) -> Ticket {
    Ticket {
        stream: stream(request, choice),
        attempt: Attempt(0),
        tenant: TenantId(1),
        class: ServiceClass::Default,
        adapter: AdapterId(0),
        prompt_tokens: 10,
        resumed_tokens: 0,
        block_hashes: Vec::new(),
        max_new_tokens: 5,
        prefix: PrefixUse::Reuse,
        deadline: None,
    }
}

pub fn sent(replica: u32, epoch: u64, ticket: Ticket) -> RouterAction {
    RouterAction::Send {
        replica: ReplicaId(replica),
        epoch: Epoch(epoch),
        ticket,
    }
}

pub fn released(request: u128, position: Option<u32>, finish: Option<Finish>) -> RouterAction {
    RouterAction::Release {
        stream: stream(request, 0),
        position: position.map(Position),
        finish,
    }
}

/// The ticket of a later attempt, after `delivered` tokens.
pub fn resumed(request: u128, attempt: u32, delivered: u32) -> Ticket {
    Ticket {
        attempt: Attempt(attempt),
        prompt_tokens: 10 + delivered,
        resumed_tokens: delivered,
        max_new_tokens: 5 - delivered,
        ..ticket(request, 0)
    }
}

pub fn replicas_of(actions: &[RouterAction]) -> Vec<u32> {
    actions
        .iter()
        .map(|action| match action {
            RouterAction::Send { replica, .. } => replica.0,
            other => panic!("{other:?}"),
        })
        .collect()
}
