//! Replicas on other nodes, for the router of this one: for each of them a stream to its node that carries what goes to the
//! engine and what comes from it.
//!
//! The end of the stream is the end of the replica, as far as this node can tell: what ran there is submitted anew
//! elsewhere, at once and without a word in the log.

use super::texts;
use crate::actors::board::{Board, Phase, Where};
use crate::actors::machine::Mailbox;
use crate::actors::router::{ReplicaLink, RouterMessage};
use crate::raft::AppliedState;
use crate::text::TextModel;
use crate::transport::{Class, FrameSender, LinkError, PeerError, Peers};
use proto::cluster::{ModelRecord, ReplicaRecord};
use proto::engine::{FromEngine, Load, ReplicaInfo};
use proto::peer::{Hello, ModelIs, Nonce, PeerAnswer, PeerRequest, Replica};
use proto::wire::Kind;
use proto::{Epoch, NodeId, ReplicaId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const BEAT_EVERY: Duration = Duration::from_millis(100);
/// Long enough that a host whose cores are all taken is not given up.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
const TRY_AGAIN_MIN: Duration = Duration::from_millis(50);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Who learns that a model can be served.
pub trait Served: Send + Sync + 'static {
    fn knows(&self, model: &str) -> bool;
    /// The model's text, from a node that holds it.
    fn serve(&self, model: &ModelRecord, text: TextModel, context_tokens_max: u32);
    /// These are all that the cluster serves.
    fn forget_all_but(&self, models: &[String]);
}

/// Follows the log: one task for each replica that lives elsewhere.
pub struct RemoteReplicas<S> {
    pub own: NodeId,
    pub applied: AppliedState,
    pub peers: Peers,
    pub router: Mailbox<RouterMessage>,
    pub board: Board,
    pub served: Arc<S>,
}

impl<S: Served> RemoteReplicas<S> {
    /// For as long as the node lives.
    pub async fn follow(self) {
        let mut changes = self.applied.changes();
        let mut running: BTreeMap<ReplicaId, (ReplicaRecord, JoinHandle<()>)> = BTreeMap::new();
        loop {
            let wanted = self.wanted();
            running.retain(|replica, (record, task)| {
                let stays = wanted
                    .get(replica)
                    .is_some_and(|(now, _)| now.node == record.node && now.model == record.model);
                if !stays {
                    task.abort();
                    self.board.remove(*replica);
                    // Owed to the link that was admitted when it came up.
                    self.router
                        .send_owed(RouterMessage::ReplicaGone { replica: *replica });
                }
                stays
            });
            for (replica, (record, model)) in wanted {
                running.entry(replica).or_insert_with(|| {
                    let link = RemoteReplica {
                        record: record.clone(),
                        model,
                        peers: self.peers.clone(),
                        router: self.router.clone(),
                        board: self.board.clone(),
                        served: Arc::clone(&self.served),
                    };
                    (record, tokio::spawn(link.run()))
                });
            }
            self.forget_models();
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn wanted(&self) -> BTreeMap<ReplicaId, (ReplicaRecord, ModelRecord)> {
        let state = self.applied.read();
        let remote = state
            .replicas()
            .filter(|replica| replica.node != self.own && state.is_offered(replica.replica, replica.node));
        remote
            .filter_map(|replica| {
                let model = state.model(&replica.model)?;
                Some((replica.replica, (replica.clone(), model.clone())))
            })
            .collect()
    }

    fn forget_models(&self) {
        let known: Vec<String> = self
            .applied
            .read()
            .models()
            .map(|model| model.name.clone())
            .collect();
        self.served.forget_all_but(&known);
    }
}

struct RemoteReplica<S> {
    record: ReplicaRecord,
    model: ModelRecord,
    peers: Peers,
    router: Mailbox<RouterMessage>,
    board: Board,
    served: Arc<S>,
}

impl<S: Served> RemoteReplica<S> {
    /// One stream after another.
    async fn run(self) {
        let mut pause = TRY_AGAIN_MIN;
        let place = Where::Elsewhere(self.record.node);
        self.board
            .starting(self.record.replica, self.record.epoch, &self.record.model, place);
        loop {
            let mut heard = Heard::default();
            let ended = self.converse(&mut heard).await;
            if let Some(epoch) = heard.epoch {
                let replica = self.record.replica;
                self.router
                    .send(RouterMessage::ReplicaDown { replica, epoch })
                    .await;
                pause = TRY_AGAIN_MIN;
            }
            self.board.phase(self.record.replica, heard.phase_after(ended));
            sleep(pause).await;
            pause = (pause * 2).min(TRY_AGAIN_MAX);
        }
    }

    async fn converse(&self, heard: &mut Heard) -> Result<(), PeerError> {
        let hello = Hello::Engine(Box::new(Replica {
            replica: self.record.replica,
        }));
        let (sender, mut receiver) = self.peers.open(self.record.node, Class::Control, hello).await?;
        let (frames, outbox) = mpsc::unbounded_channel();
        let mut writing = tokio::spawn(write_all(sender, outbox));
        let listening = async {
            while let Some(message) = receiver.next_message::<FromEngine>(Kind::FromEngine).await? {
                self.take(message, heard, &frames).await?;
            }
            Ok::<(), PeerError>(())
        };
        let ended = tokio::select! {
            ended = listening => ended,
            silent = self.until_silent() => Err(silent),
            written = &mut writing => match written {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(())) | Err(_) => Ok(()),
            },
        };
        writing.abort();
        ended
    }

    /// Sooner than QUIC gives a connection up: to submit anew elsewhere is harmless also where the node was only slow.
    async fn until_silent(&self) -> PeerError {
        loop {
            sleep(BEAT_EVERY).await;
            let ping = PeerRequest::Ping(Box::new(Nonce { nonce: 0 }));
            if let Err(error) = self
                .peers
                .call_within(self.record.node, ping, SUSPECT_AFTER)
                .await
            {
                return error;
            }
        }
    }

    async fn take(
        &self,
        message: FromEngine,
        heard: &mut Heard,
        frames: &mpsc::UnboundedSender<Vec<u8>>,
    ) -> Result<(), PeerError> {
        let replica = self.record.replica;
        if let FromEngine::Ready(info) = message {
            return self.ready(info, heard, frames).await;
        }
        let Some(epoch) = heard.epoch else {
            if let Some(phase) = why_not(message) {
                heard.instead = Some(phase.clone());
                self.board.phase(replica, phase);
            }
            return Ok(());
        };
        match message {
            FromEngine::Tokens(batch) => {
                for delivery in batch.deliveries {
                    let delivered = RouterMessage::Delivered {
                        replica,
                        epoch,
                        delivery,
                    };
                    self.router.send(delivered).await;
                }
            }
            FromEngine::Refused {
                stream,
                attempt,
                refusal,
            } => {
                let refused = RouterMessage::Refused {
                    replica,
                    epoch,
                    stream,
                    attempt,
                    refusal,
                };
                self.router.send(refused).await;
            }
            FromEngine::Load(load) => self.load(epoch, load).await,
            FromEngine::Pipeline(used) => self.board.pipeline(replica, *used),
            FromEngine::Ready(_)
            | FromEngine::Loading { .. }
            | FromEngine::Failed { .. }
            | FromEngine::Damaged { .. }
            | FromEngine::Drained
            | FromEngine::Listening(_)
            | FromEngine::Alive => {}
        }
        Ok(())
    }

    async fn ready(
        &self,
        info: ReplicaInfo,
        heard: &mut Heard,
        frames: &mpsc::UnboundedSender<Vec<u8>>,
    ) -> Result<(), PeerError> {
        let text = match self.served.knows(&self.model.name) {
            true => None,
            false => Some(self.text().await?),
        };
        heard.epoch = Some(info.epoch);
        let link = ReplicaLink {
            info: info.clone(),
            model_digest: self.model.digest,
            frames: frames.clone(),
        };
        let model = self.record.model.clone();
        self.router.send(RouterMessage::ReplicaUp { model, link }).await;
        // After the router: a client that sees a model may use it.
        if let Some(text) = text {
            self.served.serve(&self.model, text, info.context_tokens_max);
        }
        self.board.phase(self.record.replica, Phase::Ready(info));
        Ok(())
    }

    async fn load(&self, epoch: Epoch, load: Load) {
        let replica = self.record.replica;
        self.board.load(replica, load);
        self.router
            .send(RouterMessage::Load { replica, epoch, load })
            .await;
    }

    async fn text(&self) -> Result<TextModel, PeerError> {
        let node = self.record.node;
        let request = PeerRequest::ModelText(Box::new(ModelIs {
            digest: self.model.digest,
        }));
        let wrong = |reason: String| PeerError::Link(LinkError::Closed { node, reason });
        match self.peers.call(node, request).await? {
            PeerAnswer::ModelText(text) => {
                let source = texts::read(&text.frame).map_err(|error| wrong(error.to_string()))?;
                // Building it takes a while, and other tasks live on this thread.
                let built = tokio::task::spawn_blocking(move || TextModel::from_source(source)).await;
                let built = built.map_err(|error| wrong(error.to_string()))?;
                built.map_err(|error| wrong(error.to_string()))
            }
            answer => Err(wrong(answer.amiss())),
        }
    }
}

/// What this stream has said so far.
#[derive(Default)]
struct Heard {
    /// Once the replica is ready.
    epoch: Option<Epoch>,
    /// What it does instead, where it is not.
    instead: Option<Phase>,
}

impl Heard {
    fn phase_after(self, ended: Result<(), PeerError>) -> Phase {
        let down = |reason: String| Phase::Down { reason };
        match ended {
            Ok(()) => self.instead.unwrap_or_else(|| down("it is not ready".to_owned())),
            Err(error) => down(error.to_string()),
        }
    }
}

/// What a replica does that is not ready.
fn why_not(message: FromEngine) -> Option<Phase> {
    match message {
        FromEngine::Loading { permille } => Some(Phase::Loading { permille }),
        FromEngine::Failed { reason } | FromEngine::Damaged { reason } => Some(Phase::Down { reason }),
        FromEngine::Ready(_)
        | FromEngine::Tokens(_)
        | FromEngine::Refused { .. }
        | FromEngine::Load(_)
        | FromEngine::Drained
        | FromEngine::Listening(_)
        | FromEngine::Pipeline(_)
        | FromEngine::Alive => None,
    }
}

async fn write_all(
    mut sender: FrameSender,
    mut outbox: mpsc::UnboundedReceiver<Vec<u8>>,
) -> Result<(), LinkError> {
    while let Some(frame) = outbox.recv().await {
        sender.send_framed(Kind::ToEngine, frame).await?;
    }
    Ok(())
}
