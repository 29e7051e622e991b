//! Between one replica's engine and all who use it: the router of this node, and those of others.
//!
//! The engine knows streams, not nodes. Who submitted a stream hears of it; what nobody submitted is dropped.

use super::owners::Owners;
use crate::actors::machine::Mailbox;
use crate::actors::router::{ReplicaLink, RouterMessage};
use proto::engine::{FromEngine, Load, PipelineUse, ReplicaInfo, ToEngine, TokenBatch};
use proto::wire::{self, Kind};
use proto::{Epoch, NodeId, ReplicaId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Messages that may wait for a gateway on another node. One that is further behind has lost its link: it submits anew
/// what it still wants.
const GATEWAY_MESSAGES: usize = 4096;

/// Of one replica, over all its epochs. Cheap to copy.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    replica: ReplicaId,
    model: String,
    model_digest: [u8; 32],
    router: Mailbox<RouterMessage>,
    open: Mutex<Open>,
}

/// What is known of the present epoch.
#[derive(Default)]
struct Open {
    engine: Option<EngineSide>,
    offer: Offer,
    load: Load,
    gateways: BTreeMap<NodeId, Link>,
    /// Links that there were.
    links: u64,
    owners: Owners,
}

/// May routers use it?
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Offer {
    #[default]
    Open,
    /// Its node is drained.
    Withdrawn,
    /// It is not here any more.
    Ended,
}

struct EngineSide {
    info: ReplicaInfo,
    frames: mpsc::UnboundedSender<Vec<u8>>,
}

/// Of a gateway, the one that it opened last. It takes a while until the end of an earlier one is noticed.
struct Link {
    number: u64,
    sender: mpsc::Sender<FromEngine>,
}

/// A gateway on another node, by one of its links.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    gateway: NodeId,
    number: u64,
}

impl Hub {
    pub fn new(
        replica: ReplicaId,
        model: String,
        model_digest: [u8; 32],
        router: Mailbox<RouterMessage>,
    ) -> Hub {
        Hub(Arc::new(Shared {
            replica,
            model,
            model_digest,
            router,
            open: Mutex::default(),
        }))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine can serve; frames for it go to `frames`, which the caller empties for as long as the epoch lives.
    pub async fn ready(&self, info: ReplicaInfo, frames: mpsc::UnboundedSender<Vec<u8>>) {
        let up = {
            let mut open = self.open();
            open.engine = Some(EngineSide { info, frames });
            open.announce();
            self.up(&open)
        };
        if let Some(up) = up {
            self.0.router.send(up).await;
        }
    }

    /// What this node's router has to hear; `None` where there is nothing to use.
    fn up(&self, open: &Open) -> Option<RouterMessage> {
        let engine = open.engine.as_ref().filter(|_| open.offer == Offer::Open)?;
        Some(RouterMessage::ReplicaUp {
            model: self.0.model.clone(),
            link: ReplicaLink {
                info: engine.info.clone(),
                model_digest: self.0.model_digest,
                frames: engine.frames.clone(),
            },
        })
    }

    /// No router uses it from now on; what ran here is submitted anew elsewhere.
    pub async fn withdraw(&self) {
        self.close(Offer::Withdrawn).await;
    }

    /// As [`Hub::withdraw`], for good.
    pub async fn end(&self) {
        self.close(Offer::Ended).await;
    }

    async fn close(&self, offer: Offer) {
        let engine = {
            let mut open = self.open();
            let before = std::mem::replace(&mut open.offer, offer);
            if before == Offer::Ended {
                open.offer = Offer::Ended;
            }
            if before != Offer::Open {
                return;
            }
            let gateways: Vec<NodeId> = open.gateways.keys().copied().collect();
            gateways.into_iter().for_each(|gateway| open.cancel_all(gateway));
            open.gateways.clear();
            open.engine.as_ref().map(|engine| engine.info.epoch)
        };
        // A later epoch, of another node, may have come up by now: where this node was stopped for a while.
        if let Some(epoch) = engine {
            let replica = self.0.replica;
            self.0
                .router
                .send(RouterMessage::ReplicaDown { replica, epoch })
                .await;
        }
    }

    /// Routers may use it again.
    pub async fn offer(&self) {
        let up = {
            let mut open = self.open();
            if open.offer != Offer::Withdrawn {
                return;
            }
            open.offer = Offer::Open;
            open.announce();
            self.up(&open)
        };
        if let Some(up) = up {
            self.0.router.send(up).await;
        }
    }

    /// The epoch has ended, and with it every stream.
    pub async fn down(&self, epoch: Epoch) {
        {
            let mut open = self.open();
            open.engine = None;
            open.owners = Owners::default();
            // A gateway whose link ends takes the replica for lost, which it is.
            open.gateways.clear();
        }
        let replica = self.0.replica;
        self.0
            .router
            .send(RouterMessage::ReplicaDown { replica, epoch })
            .await;
    }

    pub async fn load(&self, epoch: Epoch, load: Load) {
        {
            let mut open = self.open();
            open.load = load;
            open.tell_all(&FromEngine::Load(load));
        }
        let replica = self.0.replica;
        self.0
            .router
            .send(RouterMessage::Load { replica, epoch, load })
            .await;
    }

    /// How well its pipeline is used, for the routers of other nodes.
    pub fn pipeline(&self, used: PipelineUse) {
        self.open().tell_all(&FromEngine::Pipeline(Box::new(used)));
    }

    pub async fn refused(&self, epoch: Epoch, refused: FromEngine) {
        let FromEngine::Refused {
            stream,
            attempt,
            refusal,
        } = refused
        else {
            return;
        };
        let is_remote = {
            let mut open = self.open();
            let gateway = open.owners.of(stream, attempt);
            if let Some(gateway) = gateway {
                open.owners.ended(stream, attempt);
                let message = FromEngine::Refused {
                    stream,
                    attempt,
                    refusal: refusal.clone(),
                };
                open.tell(gateway, message);
            }
            gateway.is_some()
        };
        if !is_remote {
            let message = RouterMessage::Refused {
                replica: self.0.replica,
                epoch,
                stream,
                attempt,
                refusal,
            };
            self.0.router.send(message).await;
        }
    }

    pub async fn tokens(&self, epoch: Epoch, batch: TokenBatch) {
        let local = self.open().hand_out(batch);
        for delivery in local {
            let message = RouterMessage::Delivered {
                replica: self.0.replica,
                epoch,
                delivery,
            };
            self.0.router.send(message).await;
        }
    }

    /// A gateway on another node wants to use the replica; it has done with what it attached before. What it receives
    /// begins with `Ready` as soon as the replica is; the end of it is the end of the epoch, or of the gateway's patience.
    pub fn attach(&self, gateway: NodeId) -> (Attached, mpsc::Receiver<FromEngine>) {
        let (sender, receiver) = mpsc::channel(GATEWAY_MESSAGES);
        let mut open = self.open();
        open.cancel_all(gateway);
        open.links += 1;
        let number = open.links;
        open.gateways.insert(gateway, Link { number, sender });
        open.greet(gateway);
        (Attached { gateway, number }, receiver)
    }

    /// What a gateway on another node says to the engine of `epoch`. Messages to another epoch are dropped, and those of a
    /// link that is not the gateway's last.
    pub fn take(&self, from: Attached, epoch: Epoch, message: &ToEngine) {
        let gateway = from.gateway;
        let mut open = self.open();
        let is_served = open
            .engine
            .as_ref()
            .is_some_and(|engine| engine.info.epoch == epoch);
        if !is_served || !open.has(from) {
            return;
        }
        match message {
            ToEngine::Submit(submit) => {
                let ticket = &submit.ticket;
                open.owners.submitted(gateway, ticket.stream, ticket.attempt);
            }
            ToEngine::Cancel { stream, attempt } => {
                if open.owners.of(*stream, *attempt) != Some(gateway) {
                    return;
                }
                open.owners.ended(*stream, *attempt);
            }
            // Only the node that the replica lives on may end it, and speak with its stages.
            ToEngine::Drain | ToEngine::Stages(_) | ToEngine::Trust(_) | ToEngine::Landed(_) => return,
        }
        open.send(message);
    }

    /// The gateway has gone: nobody is left to hear of its streams.
    pub fn detach(&self, gone: Attached) {
        let mut open = self.open();
        if open.has(gone) {
            open.gateways.remove(&gone.gateway);
            open.cancel_all(gone.gateway);
        }
    }
}

impl Open {
    /// Is it the link that its gateway opened last, and not cut?
    fn has(&self, attached: Attached) -> bool {
        self.gateways
            .get(&attached.gateway)
            .is_some_and(|link| link.number == attached.number)
    }

    fn send(&self, message: &ToEngine) {
        if let Some(engine) = &self.engine {
            // A closed channel means that the epoch is ending.
            let _ = engine
                .frames
                .send(wire::frame(Kind::ToEngine, engine.info.epoch.0, message));
        }
    }

    /// To all gateways on other nodes.
    fn announce(&mut self) {
        let gateways: Vec<NodeId> = self.gateways.keys().copied().collect();
        gateways.into_iter().for_each(|gateway| self.greet(gateway));
    }

    fn greet(&mut self, gateway: NodeId) {
        let engine = self.engine.as_ref().filter(|_| self.offer == Offer::Open);
        if let Some(info) = engine.map(|engine| engine.info.clone()) {
            let load = self.load;
            self.tell(gateway, FromEngine::Ready(info));
            self.tell(gateway, FromEngine::Load(load));
        }
    }

    fn tell_all(&mut self, message: &FromEngine) {
        let gateways: Vec<NodeId> = self.gateways.keys().copied().collect();
        for gateway in gateways {
            self.tell(gateway, message.clone());
        }
    }

    fn tell(&mut self, gateway: NodeId, message: FromEngine) {
        let is_told = self
            .gateways
            .get(&gateway)
            .is_some_and(|link| link.sender.try_send(message).is_ok());
        if !is_told && self.gateways.remove(&gateway).is_some() {
            tracing::warn!(%gateway, "a gateway is too far behind; its link is cut");
            self.cancel_all(gateway);
        }
    }

    fn cancel_all(&mut self, gateway: NodeId) {
        for (stream, attempt) in self.owners.left(gateway) {
            self.send(&ToEngine::Cancel { stream, attempt });
        }
    }

    /// One batch for each gateway; what is left is this node's own.
    fn hand_out(&mut self, batch: TokenBatch) -> Vec<proto::engine::Delivery> {
        let (mut local, mut remote) = (Vec::new(), BTreeMap::<NodeId, Vec<_>>::new());
        for delivery in batch.deliveries {
            match self.owners.of(delivery.stream, delivery.attempt) {
                None => local.push(delivery),
                Some(gateway) => {
                    if delivery.finish.is_some() {
                        self.owners.ended(delivery.stream, delivery.attempt);
                    }
                    remote.entry(gateway).or_default().push(delivery);
                }
            }
        }
        for (gateway, deliveries) in remote {
            let batch = TokenBatch {
                replica: batch.replica,
                epoch: batch.epoch,
                step: batch.step,
                deliveries,
            };
            self.tell(gateway, FromEngine::Tokens(batch));
        }
        local
    }
}
