//! Whatever replicas, clients and time do in whatever order: clients see every position once and every stream ends.

mod story;

use coordinator::Machine;
use coordinator::router::{RouterAction, RouterConfig, RouterEvent};
use proptest::prelude::*;
use proto::engine::Load;
use proto::request::{Finish, Refusal, Ticket};
use proto::{BlockHash, Epoch, Position, ReplicaId, RequestId, Span, StreamId};
use std::collections::BTreeMap;
use story::{At, Story, stream, ticket};

/// What may come to a router, from clients that exist and replicas that may be wrong.
#[derive(Clone, Debug)]
enum Happening {
    /// With a prompt of these blocks.
    Arrive(u128, u32, Vec<u128>),
    Up(u32, u64),
    Down(u32, u64),
    Deliver(At, Option<u32>, Option<u32>, Option<Finish>),
    Report(u32, u64, Load),
    Refuse(At, Refusal),
    Ended(StreamId),
    Gone(u128),
    Pass(u64),
}

fn places() -> impl Strategy<Value = At> {
    (0..3_u32, 0..3_u64, 0..6_u128, 0..2_u32, 0..3_u32).prop_map(
        |(replica, epoch, request, choice, attempt)| At {
            replica,
            epoch,
            stream: stream(request, choice),
            attempt,
        },
    )
}

/// Chains that share beginnings of any length.
fn chains() -> impl Strategy<Value = Vec<u128>> {
    (0..6_usize, 0..6_usize, 0..4_u128).prop_map(|(length, shared, branch)| {
        let name = |depth: usize| depth as u128 + if depth < shared { 0 } else { 100 * branch };
        (0..length).map(name).collect()
    })
}

/// Whatever a replica may say of itself.
fn loads() -> impl Strategy<Value = Load> {
    (
        any::<u32>(),
        any::<u64>(),
        prop_oneof![Just(0.0), Just(1e-3), Just(f64::NAN)],
    )
        .prop_map(|(running, backlog_tokens, step_per_token_secs)| Load {
            running,
            waiting: running,
            backlog_tokens,
            step_per_token_secs,
            ..Load::default()
        })
}

fn happenings() -> impl Strategy<Value = Happening> {
    let finish = prop::option::weighted(0.1, Just(Finish::Stop));
    let refusal = prop_oneof![
        Just(Refusal::Busy {
            retry_after: Span::from_millis(50)
        }),
        Just(Refusal::Draining),
        Just(Refusal::TooLong {
            tokens: 9,
            tokens_max: 1
        }),
    ];
    prop_oneof![
        4 => (0..6_u128, 1..3_u32, chains())
            .prop_map(|(request, choices, chain)| Happening::Arrive(request, choices, chain)),
        2 => (0..3_u32, 0..3_u64).prop_map(|(replica, epoch)| Happening::Up(replica, epoch)),
        1 => (0..3_u32, 0..3_u64).prop_map(|(replica, epoch)| Happening::Down(replica, epoch)),
        20 => (places(), prop::option::weighted(0.9, 0..4_u32), prop::option::of(0..100_u32), finish)
            .prop_map(|(at, position, cached, finish)| Happening::Deliver(at, position, cached, finish)),
        2 => (0..3_u32, 0..3_u64, loads()).prop_map(|(replica, epoch, load)| Happening::Report(replica, epoch, load)),
        1 => (places(), refusal).prop_map(|(at, refusal)| Happening::Refuse(at, refusal)),
        1 => (0..6_u128, 0..2_u32).prop_map(|(request, choice)| Happening::Ended(stream(request, choice))),
        1 => (0..6_u128).prop_map(Happening::Gone),
        1 => (0..2_000_u64).prop_map(Happening::Pass),
    ]
}

/// What the clients of a router have seen: the next position of every stream that has not ended.
#[derive(Default)]
struct Clients {
    open: BTreeMap<StreamId, u32>,
}

impl Clients {
    fn see(&mut self, actions: &[RouterAction]) {
        for action in actions {
            match action {
                RouterAction::Release {
                    stream,
                    position,
                    finish,
                } => {
                    self.release(*stream, *position, *finish);
                }
                RouterAction::Abandon { stream, .. } => {
                    self.open.remove(stream).expect("an open stream");
                }
                RouterAction::Refuse { request, .. } => {
                    self.open.retain(|stream, _| stream.request != *request)
                }
                RouterAction::Send { ticket, .. } => {
                    assert_eq!(ticket.resumed_tokens, self.open[&ticket.stream]);
                    assert_eq!(ticket.resumed_tokens + ticket.max_new_tokens, 5);
                }
                RouterAction::Cancel { .. } | RouterAction::Drained => {}
            }
        }
    }

    fn release(&mut self, stream: StreamId, position: Option<Position>, finish: Option<Finish>) {
        let next = self.open.get_mut(&stream).expect("an open stream");
        if let Some(position) = position {
            assert_eq!(position.0, *next, "position of {stream}");
            *next += 1;
        }
        if finish.is_some() {
            self.open.remove(&stream);
        }
    }
}

fn happen(story: &mut Story, clients: &mut Clients, happening: Happening) {
    let actions = match happening {
        Happening::Arrive(request, choices, chain) => {
            if !clients
                .open
                .keys()
                .any(|stream| stream.request == RequestId(request))
            {
                clients
                    .open
                    .extend((0..choices).map(|choice| (stream(request, choice), 0)));
            }
            let with_prompt = |choice| Ticket {
                prompt_tokens: 16 * chain.len() as u32 + 1,
                block_hashes: chain.iter().map(|hash| BlockHash(*hash)).collect(),
                ..ticket(request, choice)
            };
            story.arrive_with((0..choices).map(with_prompt).collect())
        }
        Happening::Up(replica, epoch) => story.up(replica, epoch),
        Happening::Down(replica, epoch) => story.down(replica, epoch),
        Happening::Deliver(at, position, cached, finish) => {
            story.deliver_cached(at, position, cached, finish)
        }
        Happening::Report(replica, epoch, load) => story.event(RouterEvent::Load {
            replica: ReplicaId(replica),
            epoch: Epoch(epoch),
            load,
        }),
        Happening::Refuse(at, refusal) => story.refuse(at, refusal),
        Happening::Ended(stream) => {
            clients.open.remove(&stream);
            story.event(RouterEvent::Ended {
                stream,
                finish: Finish::Stop,
            })
        }
        Happening::Gone(request) => {
            clients
                .open
                .retain(|stream, _| stream.request != RequestId(request));
            story.event(RouterEvent::ClientGone {
                request: RequestId(request),
            })
        }
        Happening::Pass(ms) => story.pass(Span::from_millis(ms)),
    };
    clients.see(&actions);
    assert_eq!(story.router.streams() as usize, clients.open.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_replicas_say_clients_see_every_position_once_and_every_stream_end_once(
        story_line in prop::collection::vec(happenings(), 1..150),
        credits in 1..4_u32,
        remembered_blocks_max in 0..20_u32,
    ) {
        let config = RouterConfig { credits, remembered_blocks_max, ..RouterConfig::default() };
        let mut story = Story::new(config);
        let mut clients = Clients::default();
        story_line.into_iter().for_each(|happening| happen(&mut story, &mut clients, happening));
        // All replicas die: whatever is still open is given up in bounded time.
        for (replica, epoch) in (0..3).flat_map(|replica| (0..3).map(move |epoch| (replica, epoch))) {
            happen(&mut story, &mut clients, Happening::Down(replica, epoch));
        }
        happen(&mut story, &mut clients, Happening::Pass(60_000));
        prop_assert!(clients.open.is_empty());
        prop_assert_eq!(story.router.deadline(), None);
    }
}
