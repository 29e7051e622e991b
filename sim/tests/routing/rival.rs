//! Simple routers, to compare the production one with.

use coordinator::Machine;
use coordinator::router::{RouterAction, RouterDelivery, RouterEvent};
use proto::engine::Load;
use proto::request::{Refusal, Ticket};
use proto::{Epoch, ReplicaId, StreamId, Time};
use std::collections::BTreeMap;

/// Sends everything at once, by one rule, and knows no credits, losses or refusals: scenarios here have none.
pub struct Rival {
    rule: Rule,
    replicas: BTreeMap<ReplicaId, Known>,
    streams: BTreeMap<StreamId, ReplicaId>,
    sent: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    RoundRobin,
    Random,
    /// Streams as last reported, and those sent by itself since.
    LeastLoaded,
    /// What was built in before: rendezvous hashing of the first block, passing over who has much more than the mean.
    FirstBlock,
}

#[derive(Debug)]
struct Known {
    epoch: Epoch,
    load: Load,
    sent_since_report: u32,
    streams: u32,
}

impl Rival {
    pub fn new(rule: Rule) -> Rival {
        Rival {
            rule,
            replicas: BTreeMap::new(),
            streams: BTreeMap::new(),
            sent: 0,
        }
    }

    fn send(&mut self, ticket: Ticket) -> RouterAction {
        let replica = self.choose(&ticket);
        self.sent += 1;
        let known = self.replicas.get_mut(&replica).unwrap();
        known.sent_since_report += 1;
        known.streams += 1;
        self.streams.insert(ticket.stream, replica);
        RouterAction::Send {
            replica,
            epoch: known.epoch,
            ticket,
        }
    }

    fn choose(&self, ticket: &Ticket) -> ReplicaId {
        let count = self.replicas.len() as u64;
        let by_number = |number: u64| *self.replicas.keys().nth(number as usize).unwrap();
        match self.rule {
            Rule::RoundRobin => by_number(self.sent % count),
            Rule::Random => by_number(mixed(ticket.stream.request.0 as u64) % count),
            Rule::LeastLoaded => {
                let load = |known: &Known| known.load.running + known.load.waiting + known.sent_since_report;
                let least = self.replicas.iter().min_by_key(|(id, known)| (load(known), **id));
                *least.unwrap().0
            }
            Rule::FirstBlock => self.bounded_rendezvous(ticket),
        }
    }

    fn bounded_rendezvous(&self, ticket: &Ticket) -> ReplicaId {
        let pressure = |known: &Known| known.streams.max(known.load.running + known.load.waiting);
        let total: u32 = self.replicas.values().map(pressure).sum();
        let bound = total * 125 / 100 / self.replicas.len() as u32 + 4;
        let prefix = ticket
            .block_hashes
            .first()
            .map_or(ticket.stream.request.0, |hash| hash.0);
        let weight =
            |id: ReplicaId| mixed(prefix as u64 ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let able = self.replicas.iter().filter(|(_, known)| pressure(known) <= bound);
        *able.max_by_key(|(id, _)| (weight(**id), **id)).unwrap().0
    }

    fn delivered(&mut self, delivery: RouterDelivery) -> RouterAction {
        if delivery.finish.is_some() {
            let replica = self.streams.remove(&delivery.stream).unwrap();
            self.replicas.get_mut(&replica).unwrap().streams -= 1;
        }
        RouterAction::Release {
            stream: delivery.stream,
            position: delivery.position,
            finish: delivery.finish,
        }
    }
}

impl Machine for Rival {
    type Event = RouterEvent;
    type Action = RouterAction;

    fn handle(&mut self, _now: Time, event: RouterEvent, out: &mut Vec<RouterAction>) {
        match event {
            RouterEvent::Arrived { request, .. } if self.replicas.is_empty() => {
                out.push(RouterAction::Refuse {
                    request,
                    refusal: Refusal::Draining,
                })
            }
            RouterEvent::Arrived { tickets, .. } => {
                out.extend(tickets.into_iter().map(|ticket| self.send(ticket)));
            }
            RouterEvent::ReplicaUp { info, .. } => {
                let known = Known {
                    epoch: info.epoch,
                    load: Load::default(),
                    sent_since_report: 0,
                    streams: 0,
                };
                self.replicas.insert(info.replica, known);
            }
            RouterEvent::Load { replica, load, .. } => {
                let known = self.replicas.get_mut(&replica).unwrap();
                known.load = load;
                known.sent_since_report = 0;
            }
            RouterEvent::Delivered { delivery, .. } => out.push(self.delivered(delivery)),
            RouterEvent::ReplicaDown { .. }
            | RouterEvent::Refused { .. }
            | RouterEvent::Ended { .. }
            | RouterEvent::ClientGone { .. }
            | RouterEvent::Drain => panic!("scenarios with rivals have no {event:?}"),
        }
    }

    fn wake(&mut self, _now: Time, _out: &mut Vec<RouterAction>) {}

    fn deadline(&self) -> Option<Time> {
        None
    }
}

/// The finaliser of SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
