//! The world of the router: tickets go in, frames for engines and events for readers come out.

use super::machine::World;
use super::streams::{Handed, OpenRequest, OpenStream, Streams};
use crate::gateway::StreamFailure;
use crate::state::NodeState;
use coordinator::router::{Router, RouterAction, RouterDelivery, RouterEvent};
use proto::engine::{Delivery, Load, ReplicaInfo, ToEngine};
use proto::request::{Finish, PrefixUse, Refusal, ServiceClass, Submit, Ticket};
use proto::wire::{self, Kind};
use proto::{AdapterId, Attempt, BlockHash, Epoch, ReplicaId, RequestId, StreamId, TenantId};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What the router hears. Messages about a replica carry its epoch, so that late ones are dropped.
pub enum RouterMessage {
    Arrived {
        request: RequestId,
        class: ServiceClass,
        open: OpenRequest,
    },
    /// Text, not tokens, ended the stream.
    Ended {
        stream: StreamId,
    },
    ClientGone {
        request: RequestId,
    },
    ReplicaUp {
        model: String,
        link: ReplicaLink,
    },
    ReplicaDown {
        replica: ReplicaId,
        epoch: Epoch,
    },
    /// It exists no more, whatever its epoch was.
    ReplicaGone {
        replica: ReplicaId,
    },
    Delivered {
        replica: ReplicaId,
        epoch: Epoch,
        delivery: Delivery,
    },
    Refused {
        replica: ReplicaId,
        epoch: Epoch,
        stream: StreamId,
        attempt: Attempt,
        refusal: Refusal,
    },
    Load {
        replica: ReplicaId,
        epoch: Epoch,
        load: Load,
    },
    /// Take nothing new; the sender hears when everything admitted has ended.
    Drain {
        drained: oneshot::Sender<()>,
    },
    /// The node ends: readers of what still runs hear why.
    GiveUp,
}

/// The way to one epoch of one replica.
pub struct ReplicaLink {
    pub info: ReplicaInfo,
    pub model_digest: [u8; 32],
    /// Frames for the engine. Without a bound of its own: the router sends a replica no more streams than its credits
    /// allow, and at most one cancellation for each.
    pub frames: mpsc::UnboundedSender<Vec<u8>>,
}

pub struct RouterWorld {
    streams: Streams,
    replicas: BTreeMap<ReplicaId, ReplicaLink>,
    /// By model: what names its blocks. Kept when the replicas are gone, so that hashes stay the same.
    hash_bases: BTreeMap<String, HashBasis>,
    state: Arc<NodeState>,
    /// The delivery being handled, until the router releases or drops it.
    held: Option<Delivery>,
    /// The request being handled, which is admitted unless the router refuses it.
    arriving: Option<RequestId>,
    drained: Vec<oneshot::Sender<()>>,
}

#[derive(Clone, Copy)]
struct HashBasis {
    model_digest: [u8; 32],
    numerics: u64,
    block_tokens: usize,
}

impl HashBasis {
    fn of(link: &ReplicaLink) -> HashBasis {
        HashBasis {
            model_digest: link.model_digest,
            numerics: link.info.numerics,
            block_tokens: link.info.block_tokens as usize,
        }
    }

    fn root(&self, salt: &[u8; 32]) -> BlockHash {
        BlockHash::root(salt, &self.model_digest, AdapterId(0), self.numerics)
    }
}

impl RouterWorld {
    pub fn new(state: Arc<NodeState>) -> RouterWorld {
        RouterWorld {
            streams: Streams::default(),
            replicas: BTreeMap::new(),
            hash_bases: BTreeMap::new(),
            state,
            held: None,
            arriving: None,
            drained: Vec::new(),
        }
    }
}

impl World<Router> for RouterWorld {
    type Message = RouterMessage;

    fn open(&mut self, message: RouterMessage) -> Option<RouterEvent> {
        match message {
            RouterMessage::Arrived { request, class, open } => Some(self.arrived(request, class, open)),
            RouterMessage::Ended { stream } => {
                self.streams.close(stream);
                Some(RouterEvent::Ended {
                    stream,
                    finish: Finish::Stop,
                })
            }
            RouterMessage::ClientGone { request } => {
                self.streams.close_request(request);
                Some(RouterEvent::ClientGone { request })
            }
            RouterMessage::ReplicaUp { model, link } => self.replica_up(model, link),
            RouterMessage::ReplicaDown { replica, epoch } => self.replica_down(replica, epoch),
            RouterMessage::ReplicaGone { replica } => {
                let epoch = self.replicas.get(&replica)?.info.epoch;
                self.replica_down(replica, epoch)
            }
            RouterMessage::Delivered {
                replica,
                epoch,
                delivery,
            } => {
                let delivery = self.hold(delivery);
                Some(RouterEvent::Delivered {
                    replica,
                    epoch,
                    delivery,
                })
            }
            RouterMessage::Refused {
                replica,
                epoch,
                stream,
                attempt,
                refusal,
            } => Some(RouterEvent::Refused {
                replica,
                epoch,
                stream,
                attempt,
                refusal,
            }),
            RouterMessage::Load { replica, epoch, load } => Some(RouterEvent::Load { replica, epoch, load }),
            RouterMessage::Drain { drained } => {
                self.drained.push(drained);
                Some(RouterEvent::Drain)
            }
            RouterMessage::GiveUp => {
                self.streams.give_up();
                None
            }
        }
    }

    fn perform(&mut self, action: RouterAction, events: &mut Vec<RouterEvent>) {
        match action {
            RouterAction::Send {
                replica,
                epoch,
                ticket,
            } => self.send(replica, epoch, ticket),
            RouterAction::Cancel {
                replica,
                epoch,
                stream,
                attempt,
            } => {
                self.frame(replica, epoch, &ToEngine::Cancel { stream, attempt });
            }
            RouterAction::Release {
                stream,
                position: _,
                finish,
            } => self.release(stream, finish, events),
            RouterAction::Refuse { request, refusal } => self.streams.refuse(request, refusal),
            RouterAction::Abandon { stream, refusal } => {
                self.streams.fail(stream, StreamFailure::Refused(refusal));
            }
            RouterAction::Drained => {
                for sender in self.drained.drain(..) {
                    let _ = sender.send(());
                }
            }
        }
    }

    fn settled(&mut self) {
        self.held = None;
        if let Some(request) = self.arriving.take() {
            self.streams.admit(request);
        }
    }
}

impl RouterWorld {
    fn arrived(&mut self, request: RequestId, class: ServiceClass, open: OpenRequest) -> RouterEvent {
        let model = open.model.clone();
        let tickets = self.tickets(request, class, &open);
        self.streams.insert(request, open);
        self.arriving = Some(request);
        RouterEvent::Arrived {
            request,
            model,
            tickets,
        }
    }

    /// Choices of one prompt follow each other and share its hashes.
    fn tickets(&self, request: RequestId, class: ServiceClass, open: &OpenRequest) -> Vec<Ticket> {
        let mut last: Option<(&Arc<[u32]>, Vec<BlockHash>)> = None;
        open.streams()
            .map(|(choice, stream)| {
                let prompt = &stream.spec.prompt;
                let hashes = match &last {
                    Some((known, hashes)) if Arc::ptr_eq(known, prompt) => hashes.clone(),
                    Some(_) | None => self.hashes(&open.model, open.tenant, prompt),
                };
                last = Some((prompt, hashes.clone()));
                first_ticket(StreamId { request, choice }, class, open.tenant, stream, hashes)
            })
            .collect()
    }

    /// Empty while nothing is known of the model: no prefix can be cached then.
    fn hashes(&self, model: &str, tenant: TenantId, tokens: &[u32]) -> Vec<BlockHash> {
        let Some(basis) = self.hash_bases.get(model) else {
            return Vec::new();
        };
        basis.root(&self.salt(tenant)).chain(tokens, basis.block_tokens)
    }

    /// Authentication names only tenants that exist; should one have gone meanwhile, the zero salt of its last
    /// requests is shared with nobody who has a salt.
    fn salt(&self, tenant: TenantId) -> [u8; 32] {
        self.state
            .applied()
            .tenant(tenant)
            .map_or([0; 32], |record| record.salt)
    }

    /// `None`: a later epoch is known, and an earlier one has been slow to say that it can serve.
    fn replica_up(&mut self, model: String, link: ReplicaLink) -> Option<RouterEvent> {
        let known = self.replicas.get(&link.info.replica);
        if known.is_some_and(|known| known.info.epoch > link.info.epoch) {
            return None;
        }
        self.hash_bases
            .entry(model.clone())
            .or_insert_with(|| HashBasis::of(&link));
        let info = link.info.clone();
        self.replicas.insert(info.replica, link);
        Some(RouterEvent::ReplicaUp { model, info })
    }

    fn replica_down(&mut self, replica: ReplicaId, epoch: Epoch) -> Option<RouterEvent> {
        let current = self.replicas.get(&replica)?.info.epoch;
        (current == epoch).then(|| {
            self.replicas.remove(&replica);
            RouterEvent::ReplicaDown { replica, epoch }
        })
    }

    fn hold(&mut self, delivery: Delivery) -> RouterDelivery {
        let seen = RouterDelivery {
            stream: delivery.stream,
            attempt: delivery.attempt,
            position: delivery.token.as_ref().map(|token| token.position),
            cached_tokens: delivery.cached_tokens,
            finish: delivery.finish,
        };
        self.held = Some(delivery);
        seen
    }

    /// A release without a delivery of that stream at hand is an end alone, as after an expiry in the queue.
    fn release(&mut self, stream: StreamId, finish: Option<Finish>, events: &mut Vec<RouterEvent>) {
        match (self.held.take_if(|delivery| delivery.stream == stream), finish) {
            (Some(delivery), finish) => {
                if self.streams.release(delivery, finish) == Handed::Ended && finish.is_none() {
                    events.push(RouterEvent::Ended {
                        stream,
                        finish: Finish::Cancelled,
                    });
                }
            }
            (None, Some(finish)) => self.streams.finish(stream, finish),
            (None, None) => {}
        }
    }

    fn send(&mut self, replica: ReplicaId, epoch: Epoch, mut ticket: Ticket) {
        let Some(submit) = self.submit(replica, &mut ticket) else {
            return;
        };
        self.frame(replica, epoch, &ToEngine::Submit(Box::new(submit)));
    }

    /// Hashes are made anew when the replica's arithmetic is another one, or when output has become prompt.
    fn submit(&self, replica: ReplicaId, ticket: &mut Ticket) -> Option<Submit> {
        let link = self.replicas.get(&replica)?;
        let stream = self.streams.stream(ticket.stream)?;
        let prompt = stream.known_tokens();
        assert_eq!(
            prompt.len(),
            ticket.prompt_tokens as usize,
            "the router counts what the table holds"
        );
        let basis = HashBasis::of(link);
        let hash_root = basis.root(&self.salt(ticket.tenant));
        ticket.block_hashes = hash_root.chain(&prompt, basis.block_tokens);
        Some(Submit {
            ticket: ticket.clone(),
            prompt,
            hash_root,
            sampling: (*stream.spec.sampling).clone(),
        })
    }

    fn frame(&self, replica: ReplicaId, epoch: Epoch, message: &ToEngine) {
        if let Some(link) = self.replicas.get(&replica)
            && link.info.epoch == epoch
        {
            // A closed channel means that the replica is going down; the router will hear of it.
            let _ = link.frames.send(wire::frame(Kind::ToEngine, epoch.0, message));
        }
    }
}

fn first_ticket(
    stream: StreamId,
    class: ServiceClass,
    tenant: TenantId,
    open: &OpenStream,
    block_hashes: Vec<BlockHash>,
) -> Ticket {
    let prefix = match open.spec.sampling.prompt_logprobs {
        Some(_) => PrefixUse::Recompute,
        None => PrefixUse::Reuse,
    };
    Ticket {
        stream,
        attempt: Attempt(0),
        tenant,
        class,
        adapter: AdapterId(0),
        prompt_tokens: u32::try_from(open.spec.prompt.len()).unwrap_or(u32::MAX),
        resumed_tokens: 0,
        block_hashes,
        max_new_tokens: open.spec.max_new_tokens,
        prefix,
        deadline: None,
    }
}
