//! The router of one gateway node: who is admitted, which replica serves, what reaches the client in which order.

mod admission;
mod affinity;
mod config;
mod dispatch;
mod memory;
mod replica;
mod stream;

pub use config::RouterConfig;

use crate::Machine;
use crate::fairness::TenantClocks;
use proto::engine::{Load, ReplicaInfo};
use proto::request::{Finish, Refusal, Ticket};
use proto::{Attempt, Epoch, Position, ReplicaId, RequestId, Span, StreamId, Time};
use replica::{Intake, Replica};
use std::collections::BTreeMap;
use stream::{Answer, Order, Place, Stream};

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
    /// Send `prompt ++ delivered` of this stream, which the shell holds, under this ticket. On a resubmission
    /// `block_hashes` still names the blocks of the client's prompt alone; the shell may append those of the output.
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
    /// The delivery just handled is the next of its stream: hand its contents to the client. Without a position, as
    /// after an expiry in the queue, it may carry a `finish` alone.
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
    /// With a stream's first delivery: how many prompt tokens came from the cache.
    pub cached_tokens: Option<u32>,
    pub finish: Option<Finish>,
}

/// The decider of one gateway.
///
/// An admitted stream ends exactly once: by a `Release` with a `finish`, by an `Abandon`, or because the gateway said
/// `Ended` or `ClientGone`. Until then its positions are released without gap or repeat, whatever replicas come and go.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    replicas: BTreeMap<ReplicaId, Replica>,
    streams: BTreeMap<StreamId, Stream>,
    /// Models that had a replica and have none, and since when.
    bereft: BTreeMap<String, Time>,
    /// Whose queued stream is sent next.
    clocks: TenantClocks,
    gate: Gate,
}

/// What happens to new requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    Open,
    Draining,
    Drained,
}

impl Machine for Router {
    type Event = RouterEvent;
    type Action = RouterAction;

    fn handle(&mut self, now: Time, event: RouterEvent, out: &mut Vec<RouterAction>) {
        match event {
            RouterEvent::Arrived {
                request,
                model,
                tickets,
            } => {
                self.arrived(now, request, model, tickets, out);
            }
            RouterEvent::ReplicaUp { model, info } => self.replica_up(now, model, info, out),
            RouterEvent::ReplicaDown { replica, epoch } => self.replica_down(now, replica, epoch, out),
            RouterEvent::Load { replica, epoch, load } => {
                if let Some(known) = self.replica_mut(replica, epoch) {
                    known.reported(load);
                }
            }
            RouterEvent::Delivered {
                replica,
                epoch,
                delivery,
            } => {
                self.delivered(now, replica, epoch, delivery, out);
            }
            RouterEvent::Refused {
                replica,
                epoch,
                stream,
                attempt,
                refusal,
            } => {
                if self.serves(replica, epoch, stream, attempt) {
                    self.refused(now, replica, stream, refusal, out);
                }
            }
            RouterEvent::Ended { stream, finish: _ } => self.cancel(stream, out),
            RouterEvent::ClientGone { request } => {
                for stream in self.streams_of(request) {
                    self.cancel(stream, out);
                }
            }
            RouterEvent::Drain => self.gate = Gate::Draining,
        }
        self.settle(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        self.expire(now, out);
        self.settle(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.streams
            .values()
            .filter_map(|stream| self.stream_due(stream))
            .min()
    }
}

impl Router {
    pub fn new(config: RouterConfig) -> Router {
        Router {
            config,
            replicas: BTreeMap::new(),
            streams: BTreeMap::new(),
            bereft: BTreeMap::new(),
            clocks: TenantClocks::default(),
            gate: Gate::Open,
        }
    }

    /// Streams admitted and not ended.
    pub fn streams(&self) -> u32 {
        self.streams.len() as u32
    }

    /// Asserts all that must hold between events: run after each in tests and in the simulator.
    pub fn check(&self) {
        for (id, replica) in &self.replicas {
            let sent = |wanted: Option<Answer>| {
                let is_here = |stream: &&Stream| match stream.place {
                    Place::Queued { .. } => false,
                    Place::Sent {
                        replica,
                        epoch,
                        answer,
                        ..
                    } => {
                        replica == *id
                            && epoch == self.replicas[id].epoch()
                            && wanted.is_none_or(|w| w == answer)
                    }
                };
                self.streams.values().filter(is_here).count() as u32
            };
            assert_eq!(replica.streams, sent(None), "streams of replica {id}");
            assert_eq!(
                replica.outstanding,
                sent(Some(Answer::Outstanding)),
                "credits of replica {id}"
            );
            assert!(
                replica.outstanding <= self.config.credits,
                "replica {id} was sent too much"
            );
            replica.check();
        }
        for stream in self.streams.values() {
            if let Place::Sent { replica, epoch, .. } = stream.place {
                let known = self.replicas.get(&replica).map(Replica::epoch);
                assert_eq!(
                    known,
                    Some(epoch),
                    "stream {} is with a replica that is not up",
                    stream.id()
                );
            }
        }
    }

    fn replica_mut(&mut self, replica: ReplicaId, epoch: Epoch) -> Option<&mut Replica> {
        self.replicas
            .get_mut(&replica)
            .filter(|known| known.epoch() == epoch)
    }

    fn streams_of(&self, request: RequestId) -> Vec<StreamId> {
        let first = StreamId { request, choice: 0 };
        let last = StreamId {
            request,
            choice: u32::MAX,
        };
        self.streams
            .range(first..=last)
            .map(|(stream, _)| *stream)
            .collect()
    }

    /// The door: only the attempt that was last sent, from the replica and epoch it was sent to, is heard.
    fn serves(&self, replica: ReplicaId, epoch: Epoch, stream: StreamId, attempt: Attempt) -> bool {
        self.streams
            .get(&stream)
            .is_some_and(|stream| match stream.place {
                Place::Queued { .. } => false,
                Place::Sent {
                    replica: sent_to,
                    epoch: sent_epoch,
                    ..
                } => (sent_to, sent_epoch, stream.attempt()) == (replica, epoch, attempt),
            })
    }

    fn replica_up(&mut self, now: Time, model: String, info: ReplicaInfo, out: &mut Vec<RouterAction>) {
        if let Some(known) = self.replicas.get(&info.replica).map(Replica::epoch) {
            if known >= info.epoch {
                return;
            }
            self.replica_down(now, info.replica, known, out);
        }
        self.bereft.remove(&model);
        self.replicas.insert(info.replica, Replica::new(model, info));
    }

    fn replica_down(&mut self, now: Time, replica: ReplicaId, epoch: Epoch, out: &mut Vec<RouterAction>) {
        if self.replica_mut(replica, epoch).is_none() {
            return;
        }
        let lost: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| matches!(stream.place, Place::Sent { replica: at, .. } if at == replica))
            .map(|(id, _)| *id)
            .collect();
        for stream in lost {
            self.retry(
                now,
                stream,
                Refusal::Unavailable {
                    retry_after: RETRY_AFTER_LOSS,
                },
                out,
            );
        }
        if let Some(gone) = self.replicas.remove(&replica)
            && self.serving(&gone.model).next().is_none()
        {
            self.bereft.insert(gone.model, now);
        }
    }

    fn delivered(
        &mut self,
        now: Time,
        replica: ReplicaId,
        epoch: Epoch,
        delivery: RouterDelivery,
        out: &mut Vec<RouterAction>,
    ) {
        let RouterDelivery {
            stream: id,
            attempt,
            position,
            cached_tokens,
            finish,
        } = delivery;
        if !self.serves(replica, epoch, id, attempt) {
            return;
        }
        self.answered(id, cached_tokens, finish);
        let stream = self.streams.get_mut(&id).expect("a stream that is served");
        match stream.order_of(position) {
            Order::Repeat => {}
            Order::Gap => {
                out.push(RouterAction::Cancel {
                    replica,
                    epoch,
                    stream: id,
                    attempt,
                });
                self.retry(
                    now,
                    id,
                    Refusal::Unavailable {
                        retry_after: RETRY_AFTER_LOSS,
                    },
                    out,
                );
            }
            Order::Next => {
                stream.count_delivered(position);
                out.push(RouterAction::Release {
                    stream: id,
                    position,
                    finish,
                });
                if finish.is_some() {
                    self.forget(id);
                }
            }
        }
    }

    /// The first word about a stream gives its credit back, and says what was cached. One that ended without being
    /// computed leaves as it came.
    fn answered(&mut self, id: StreamId, cached_tokens: Option<u32>, finish: Option<Finish>) {
        match finish {
            None | Some(Finish::Stop | Finish::Length) => {}
            Some(Finish::Cancelled | Finish::Expired | Finish::Failed | Finish::GrammarTooCostly) => return,
        }
        let stream = self.streams.get_mut(&id).expect("a stream that is served");
        let Place::Sent {
            replica,
            answer: answer @ Answer::Outstanding,
            expected,
            ..
        } = &mut stream.place
        else {
            return;
        };
        *answer = Answer::Begun;
        let (replica, expected) = (*replica, *expected);
        let blocks_max = self.remembered_blocks_max(replica);
        let stream = self.streams.get_mut(&id).expect("a stream that is served");
        let known = self
            .replicas
            .get_mut(&replica)
            .expect("streams are sent to replicas that are up");
        known.answered(stream, expected, cached_tokens, blocks_max);
        stream.numerics.get_or_insert(known.info.numerics);
    }

    fn refused(
        &mut self,
        now: Time,
        replica: ReplicaId,
        stream: StreamId,
        refusal: Refusal,
        out: &mut Vec<RouterAction>,
    ) {
        let known = self
            .replicas
            .get_mut(&replica)
            .expect("streams are sent to replicas that are up");
        match refusal {
            Refusal::Busy { retry_after } | Refusal::Unavailable { retry_after } => {
                known.rests_until = Some(now + retry_after.min(REST_MAX));
                self.retry(now, stream, refusal, out);
            }
            Refusal::Draining => {
                known.intake = Intake::Draining;
                self.retry(
                    now,
                    stream,
                    Refusal::Unavailable {
                        retry_after: RETRY_AFTER_LOSS,
                    },
                    out,
                );
            }
            // It will be the same everywhere.
            Refusal::TooLong { .. } | Refusal::BadGrammar { .. } => self.abandon(stream, refusal, out),
        }
    }

    /// The attempt has failed: queue the next one, or give up for the reason given.
    fn retry(&mut self, now: Time, id: StreamId, reason: Refusal, out: &mut Vec<RouterAction>) {
        self.detach(id);
        let stream = self.streams.get_mut(&id).expect("a stream that is retried");
        stream.requeue(now);
        if stream.is_complete() {
            out.push(RouterAction::Release {
                stream: id,
                position: None,
                finish: Some(Finish::Length),
            });
            self.forget(id);
        } else if stream.losses() >= self.config.attempts_max {
            self.abandon(id, reason, out);
        }
    }

    fn abandon(&mut self, stream: StreamId, refusal: Refusal, out: &mut Vec<RouterAction>) {
        out.push(RouterAction::Abandon { stream, refusal });
        self.forget(stream);
    }

    /// Nobody wants the stream any more.
    fn cancel(&mut self, id: StreamId, out: &mut Vec<RouterAction>) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if let Place::Sent { replica, epoch, .. } = stream.place {
            out.push(RouterAction::Cancel {
                replica,
                epoch,
                stream: id,
                attempt: stream.attempt(),
            });
        }
        self.forget(id);
    }

    fn forget(&mut self, id: StreamId) {
        self.detach(id);
        if let Some(stream) = self.streams.remove(&id) {
            self.clocks.leave(stream.tenant());
        }
    }

    /// Its replica, if it has one, serves one stream less.
    fn detach(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if let Place::Sent {
            replica,
            answer,
            expected,
            ..
        } = stream.place
            && let Some(known) = self.replicas.get_mut(&replica)
        {
            known.left(stream, expected, answer);
        }
    }

    /// After every event: send what can be sent, finish draining.
    fn settle(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        self.end_rests(now);
        self.dispatch(out);
        if self.gate == Gate::Draining && self.streams.is_empty() {
            self.gate = Gate::Drained;
            out.push(RouterAction::Drained);
        }
    }
}

/// What a client is told after a loss that nobody could take over.
const RETRY_AFTER_LOSS: Span = Span::from_secs(5);
/// A busy replica is asked again after this long at most: its estimate may be wrong, and a place may fall free.
const REST_MAX: Span = Span::from_secs(1);
