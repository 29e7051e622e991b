//! What others ask of this node, and what it says.

#[cfg(test)]
mod tests;

use super::PeerLinks;
use super::custody::Custody;
use super::probe;
use super::texts::Texts;
use super::weights::Shelf;
use crate::actors::board::{Board, Phase};
use crate::clock;
use crate::hex;
use crate::placement::OutlookBoard;
use crate::raft::{AppliedState, Member, propose};
use crate::shard_host::hub::Hub;
use crate::shard_host::stage::StagePorts;
use crate::transport::{Class, FrameReceiver, FrameSender, LinkError, Service};
use crate::trust::{Authority, Bundle, Identity, SpkiHash, authority, spki_of, token};
use coordinator::cluster_state::{Applied, ClusterState};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proto::cluster::{ClusterCommand, MemberRecord, NewMember, Role};
use proto::engine::{FromEngine, ToEngine};
use proto::join::{
    JoinAnswer, JoinRequest, Joining, MemberAddress, Refused, RenewAnswer, RenewRequest, Renewed, Renewing,
    Welcome,
};
use proto::peer::{Hello, ModelText, Papers, PeerAnswer, PeerRequest, Refusal, Replica, SignedBy};
use proto::weights::{Holding, ManifestAnswer};
use proto::wire::Kind;
use proto::{NodeId, ReplicaId};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::interval;

/// How often it is looked what a replica that is not ready does.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// As many as an answer to a stranger holds.
const NAMED_MAX: usize = 32;

/// Answers from the moment it is told who this node is; before that, it refuses.
pub struct Desk {
    identity: Arc<Identity>,
    bundle: Arc<Bundle>,
    member: OnceLock<Member<PeerLinks>>,
    pub custody: Custody,
    pub texts: Texts,
    pub stages: StagePorts,
    /// What the placer sees, while it runs here.
    pub outlook: OutlookBoard,
    /// What others may have of this node's store, once that is open.
    weights: OnceLock<Shelf>,
    /// What they are doing, once there are any.
    board: OnceLock<Board>,
    /// The replicas on this node.
    hubs: RwLock<BTreeMap<ReplicaId, Hub>>,
}

impl Desk {
    pub fn new(identity: Arc<Identity>, bundle: Arc<Bundle>, custody: Custody) -> Desk {
        Desk {
            identity,
            bundle,
            member: OnceLock::new(),
            custody,
            texts: Texts::default(),
            stages: StagePorts::default(),
            outlook: OutlookBoard::default(),
            weights: OnceLock::new(),
            board: OnceLock::new(),
            hubs: RwLock::default(),
        }
    }

    pub fn open(&self, member: Member<PeerLinks>) {
        let is_first = self.member.set(member).is_ok();
        assert!(is_first, "a node is one member for as long as it lives");
    }

    /// From now on other nodes may have the files of this store.
    pub fn lend(&self, weights: Shelf) {
        let is_first = self.weights.set(weights).is_ok();
        assert!(is_first, "a node has one store for as long as it lives");
    }

    /// From now on other nodes hear why a replica here is not ready.
    pub fn show(&self, board: Board) {
        let is_first = self.board.set(board).is_ok();
        assert!(is_first, "a node has one board for as long as it lives");
    }

    /// From now on other nodes may use this replica.
    pub fn add_replica(&self, replica: ReplicaId, hub: Hub) {
        let mut hubs = self.hubs.write().unwrap_or_else(PoisonError::into_inner);
        hubs.insert(replica, hub);
    }

    /// It is not here any more.
    pub fn remove_replica(&self, replica: ReplicaId) {
        let mut hubs = self.hubs.write().unwrap_or_else(PoisonError::into_inner);
        hubs.remove(&replica);
    }

    /// Offers this node's replicas to routers for as long as it lives, but for those that it serves by its own choice while
    /// it is drained.
    pub async fn follow_drains(&self, own: NodeId, applied: AppliedState) {
        let mut changes = applied.changes();
        loop {
            let hubs = {
                let hubs = self.hubs.read().unwrap_or_else(PoisonError::into_inner);
                hubs.clone()
            };
            for (replica, hub) in hubs {
                let is_offered = applied.read().is_offered(replica, own);
                match is_offered {
                    true => hub.offer().await,
                    false => hub.withdraw().await,
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn hub(&self, replica: ReplicaId) -> Option<Hub> {
        let hubs = self.hubs.read().unwrap_or_else(PoisonError::into_inner);
        hubs.get(&replica).cloned()
    }

    async fn answer(&self, from: NodeId, request: PeerRequest) -> PeerAnswer {
        let Some(member) = self.member.get() else {
            return refused("this node is still starting; ask again");
        };
        match request {
            PeerRequest::Ping(nonce) => PeerAnswer::Pong(nonce),
            PeerRequest::Raft(message) => PeerAnswer::Raft(Box::new(member.answer(*message).await)),
            PeerRequest::Command(proposal) => {
                PeerAnswer::Command(Box::new(member.commit_for(from, *proposal).await))
            }
            PeerRequest::ReadIndex(_) => PeerAnswer::ReadIndex(Box::new(member.read_index_here().await)),
            PeerRequest::ModelText(model) => match self.texts.find(&model.digest) {
                Some(frame) => PeerAnswer::ModelText(Box::new(ModelText {
                    frame: frame.to_vec(),
                })),
                None => refused("this node does not hold that model"),
            },
            PeerRequest::AuthorityKey(_) => self.authority_key(from, member),
            PeerRequest::SignedBy(_) => PeerAnswer::SignedBy(Box::new(self.signed_by(member))),
            PeerRequest::StageAt(wanted) => match self.stages.find(wanted.replica) {
                Ok(address) => PeerAnswer::StageAt(Box::new(address)),
                Err(reason) => refused(&reason),
            },
            PeerRequest::Holds(model) => PeerAnswer::Holds(Box::new(match self.weights.get() {
                Some(weights) => weights.holds(from, model.digest).await,
                None => Holding::Nothing,
            })),
            PeerRequest::Manifest(model) => PeerAnswer::Manifest(Box::new(match self.weights.get() {
                Some(weights) => weights.manifest(model.digest).await,
                None => ManifestAnswer::Nothing,
            })),
            PeerRequest::Outlook(_) => match self.outlook.read() {
                Some(outlook) => PeerAnswer::Outlook(Box::new(outlook)),
                None => refused("this node does not lead"),
            },
            PeerRequest::Papers(_) => PeerAnswer::Papers(Box::new(self.papers())),
        }
    }

    fn authority_key(&self, from: NodeId, member: &Member<PeerLinks>) -> PeerAnswer {
        let role = member.applied.read().member(from).map(|record| record.role);
        match (role, self.custody.hand_over(&self.bundle.authorities())) {
            (Some(Role::Voter), Some(key)) => PeerAnswer::AuthorityKey(Box::new(key)),
            (Some(Role::Voter), None) => refused("this node does not hold the authority's key"),
            (Some(Role::Worker) | None, _) => refused("the authority's key is for nodes that may vote"),
        }
    }

    fn signed_by(&self, member: &Member<PeerLinks>) -> SignedBy {
        let authorities = member.applied.read().authorities().to_vec();
        let authorities: Vec<CertificateDer<'static>> =
            authorities.into_iter().map(CertificateDer::from).collect();
        let signer = self
            .identity
            .signed_by(&authorities)
            .map(|place| &authorities[place]);
        let spki = signer.and_then(|signer| spki_of(signer).ok());
        SignedBy {
            authority: spki.unwrap_or_default(),
        }
    }

    /// Whose certificate this node shows, whom it believes, and with whose key it signs.
    pub fn papers(&self) -> Papers {
        let believed = self.bundle.authorities();
        let shows = self.identity.signed_by(&believed).map(|place| &believed[place]);
        let signs_with = self.custody.first_of(&believed);
        Papers {
            shows: shows.and_then(|shown| spki_of(shown).ok()),
            believes: self.bundle.spki_hashes(),
            signs_with: signs_with.map(|authority| authority.spki_hash()),
        }
    }

    /// Whoever is new gets a certificate of the one that signs: nobody waits until he has renewed one of another.
    fn signing_for_new(&self) -> Result<Arc<Authority>, &'static str> {
        let believed = self.bundle.authorities();
        let authority = self.custody.first_of(&believed);
        let authority =
            authority.ok_or("this node may not sign certificates; use the address of one that may vote")?;
        match believed.first() == Some(authority.certificate()) {
            true => Ok(authority),
            false => Err(
                "the cluster changes its authority, and this node does not hold the one that signs: try \
                          again in a moment, or make a token on another node",
            ),
        }
    }

    async fn let_in(&self, joining: Joining) -> Result<Welcome, String> {
        let starting = "this node is still starting; try again in a moment";
        let member = self.member.get().ok_or(starting)?;
        let authority = self.signing_for_new()?;
        reads_the_log(joining.feature_level, member.applied.read().feature_level())?;
        // Before the log is asked: a request that is wrong must not use up the token.
        let spki = authority::requested_spki(&joining.csr).map_err(|error| error.to_string())?;
        let now_secs = clock::unix_secs();
        let new = NewMember {
            token: hex::encode(&joining.token_id),
            secret_hash: token::secret_hash(&joining.secret),
            spki,
            quic: joining.quic_address,
            http: joining.http_url,
            level: joining.feature_level,
            at_secs: now_secs,
        };
        let join = propose(ClusterCommand::Join(Box::new(new)));
        let committed = member.commit_if_accepted(join).await;
        let committed = committed.map_err(|error| error.to_string())?;
        let applied = committed.outcome.map_err(|error| error.to_string())?;
        let Applied::Member(node) = applied else {
            return Err("the cluster did something else than asked; please report it".to_owned());
        };
        let certificate = authority
            .sign(&joining.csr, node, now_secs)
            .map_err(|error| error.to_string())?;
        let state = member.applied.read();
        Ok(Welcome {
            node,
            certificate: certificate.to_vec(),
            authorities: state.authorities().to_vec(),
            members: addresses(&state),
        })
    }

    fn renewed(&self, spki: &SpkiHash, renewing: &Renewing) -> Result<Renewed, String> {
        let member = self.member.get().ok_or("this node is still starting")?;
        let authority = self.custody.first_of(&self.bundle.authorities());
        let authority = authority.ok_or("this node may not sign certificates; ask one that may vote")?;
        let asked = authority::requested_spki(&renewing.csr).map_err(|error| error.to_string())?;
        if asked != *spki {
            return Err("a certificate is renewed for the key that it was made for".to_owned());
        }
        let state = member.applied.read();
        let record = state.member_by_key(spki).ok_or("no member has this key")?;
        let signed = authority.sign(&renewing.csr, record.node, clock::unix_secs());
        Ok(Renewed {
            certificate: signed.map_err(|error| error.to_string())?.to_vec(),
            authorities: state.authorities().to_vec(),
        })
    }

    /// Until the gateway has gone, or the epoch has ended.
    async fn converse(
        &self,
        gateway: NodeId,
        wanted: Replica,
        mut sender: FrameSender,
        mut receiver: FrameReceiver,
    ) -> Result<(), LinkError> {
        let why_not = || self.board.get()?.unready_here(wanted.replica).and_then(why_not);
        let Some(hub) = self.hub(wanted.replica) else {
            if let Some(message) = why_not() {
                sender.send(Kind::FromEngine, 0, &message).await?;
            }
            sender.finish();
            return Ok(());
        };
        let (attached, mut heard) = hub.attach(gateway);
        let listening = async {
            while let Some(frame) = receiver.next().await? {
                let epoch = proto::Epoch(frame.epoch);
                match frame.open::<ToEngine>() {
                    Ok(message) => hub.take(attached, epoch, &message),
                    Err(error) => tracing::warn!(%gateway, %error, "a message for an engine does not read"),
                }
            }
            Ok(())
        };
        let speaking = async {
            let (mut looks, mut said) = (interval(LOOK_EVERY), None);
            loop {
                tokio::select! {
                    message = heard.recv() => match message {
                        Some(message) => sender.send(Kind::FromEngine, 0, &message).await?,
                        None => break,
                    },
                    _ = looks.tick() => {
                        let now = why_not();
                        if now != said && let Some(message) = &now {
                            sender.send(Kind::FromEngine, 0, message).await?;
                        }
                        said = now;
                    }
                }
            }
            sender.finish();
            Ok(())
        };
        let ended = tokio::select! {
            ended = listening => ended,
            ended = speaking => ended,
        };
        hub.detach(attached);
        ended
    }
}

fn addresses(state: &ClusterState) -> Vec<MemberAddress> {
    let address = |member: &MemberRecord| MemberAddress {
        node: member.node,
        quic_address: member.quic.clone(),
        spki: member.spki,
    };
    let mut members: Vec<&MemberRecord> = state.members().collect();
    // Those who vote have the rest of what there is to know.
    members.sort_by_key(|member| member.role);
    members.into_iter().take(NAMED_MAX).map(address).collect()
}

/// Of a program, by the level that it says it understands.
fn reads_the_log(understood: u32, committed: u32) -> Result<(), String> {
    match understood < committed {
        true => Err(format!(
            "the joining program understands feature level {understood}, and the cluster is at {committed}: install the \
             version that the other nodes run"
        )),
        false => Ok(()),
    }
}

fn refused(reason: &str) -> PeerAnswer {
    PeerAnswer::Refused(Box::new(Refusal {
        reason: reason.to_owned(),
    }))
}

/// For a node that would use a replica which is not ready.
fn why_not(phase: Phase) -> Option<FromEngine> {
    match phase {
        Phase::Loading { permille } => Some(FromEngine::Loading { permille }),
        Phase::Waiting { reason } | Phase::Down { reason } => Some(FromEngine::Failed { reason }),
        Phase::Starting | Phase::Ready(_) => None,
    }
}

impl Service for Desk {
    fn call(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'_, PeerAnswer> {
        self.answer(from, request).boxed()
    }

    fn stream(
        &self,
        from: NodeId,
        class: Class,
        hello: Hello,
        sender: FrameSender,
        receiver: FrameReceiver,
    ) -> BoxFuture<'_, ()> {
        async move {
            match hello {
                Hello::Engine(replica) => {
                    if let Err(error) = self.converse(from, *replica, sender, receiver).await {
                        tracing::debug!(gateway = %from, %error, "a gateway's stream ended");
                    }
                }
                Hello::Probe(asked) => {
                    if let Some(weights) = self.weights.get() {
                        weights.until_quiet(probe::DEFERRED_MAX).await;
                    }
                    if let Err(error) = probe::serve(*asked, sender).await {
                        tracing::debug!(node = %from, %error, "a probe of the link ended");
                    }
                }
                Hello::Blob(blob) => {
                    if let Some(weights) = self.weights.get()
                        && let Err(error) = weights.serve(from, &blob.name, sender, receiver).await
                    {
                        tracing::debug!(node = %from, %error, "a node's stream for a file ended");
                    }
                }
                // Stages have ports of their own.
                Hello::Stage(_) => {
                    tracing::debug!(node = %from, class = class.name(), "a stream that this node has no use for");
                }
            }
        }
        .boxed()
    }

    fn join(&self, from: SocketAddr, request: JoinRequest) -> BoxFuture<'_, JoinAnswer> {
        async move {
            let JoinRequest::V1(joining) = request;
            match self.let_in(*joining).await {
                Ok(welcome) => {
                    tracing::info!(%from, node = %welcome.node, "a node has joined");
                    JoinAnswer::Welcome(Box::new(welcome))
                }
                Err(reason) => {
                    tracing::warn!(%from, reason, "somebody was not let in");
                    JoinAnswer::Refused(Box::new(Refused { reason }))
                }
            }
        }
        .boxed()
    }

    fn renew(&self, spki: SpkiHash, request: RenewRequest) -> BoxFuture<'_, RenewAnswer> {
        async move {
            let RenewRequest::V1(renewing) = request;
            match self.renewed(&spki, &renewing) {
                Ok(renewed) => RenewAnswer::Renewed(Box::new(renewed)),
                Err(reason) => RenewAnswer::Refused(Box::new(Refused { reason })),
            }
        }
        .boxed()
    }
}
