//! Nodes of one cluster within this process, on loopback.

use crate::clock;
use crate::transport::*;
use crate::trust::{Authority, Bundle, Identity, SpkiHash};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use proto::NodeId;
use proto::cluster::{ClusterCommand, KeyId, Proposal};
use proto::join::*;
use proto::peer::*;
use proto::raft::{PartPlace, RaftRequest, SnapshotMeta, SnapshotPart, StoredMembership, Vote, VoteStanding};
use proto::wire::Kind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Who is a member, and what the service of every node has been asked.
#[derive(Default)]
pub struct Roster {
    pub members: Mutex<BTreeMap<SpkiHash, (NodeId, Role)>>,
}

impl Roster {
    pub fn add(&self, spki: SpkiHash, node: u64, role: Role) {
        self.members.lock().unwrap().insert(spki, (NodeId(node), role));
    }

    pub fn remove(&self, spki: &SpkiHash) {
        self.members.lock().unwrap().remove(spki);
    }
}

impl Membership for Roster {
    fn member(&self, spki: &SpkiHash) -> Option<(NodeId, Role)> {
        self.members.lock().unwrap().get(spki).copied()
    }
}

pub struct Cluster {
    pub authority: Arc<Authority>,
    pub roster: Arc<Roster>,
}

pub struct Node {
    pub id: NodeId,
    pub peers: Peers,
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub service: Arc<Recorder>,
}

impl Cluster {
    pub fn new() -> Cluster {
        Cluster {
            authority: Arc::new(Authority::make(clock::unix_secs()).unwrap()),
            roster: Arc::new(Roster::default()),
        }
    }

    pub fn chain_at(&self, identity: &Identity, node: u64, now_secs: u64) {
        let csr = identity.csr().unwrap();
        let certificate = self.authority.sign(&csr, NodeId(node), now_secs).unwrap();
        let chain = vec![certificate, self.authority.certificate().clone()];
        identity.set_chain(chain).unwrap();
    }

    pub fn identity(&self, node: u64) -> Arc<Identity> {
        let identity = Identity::make().unwrap();
        self.chain_at(&identity, node, clock::unix_secs());
        Arc::new(identity)
    }

    pub fn node(&self, id: u64) -> Node {
        self.node_as(id, Role::Voter)
    }

    pub fn node_as(&self, id: u64, role: Role) -> Node {
        let identity = self.identity(id);
        self.roster.add(identity.spki_hash(), id, role);
        self.node_with(id, identity, "127.0.0.1:0".parse().unwrap())
    }

    /// The same cluster, as somebody sees it who has not heard of later changes.
    pub fn as_it_is_now(&self) -> Cluster {
        let members = self.roster.members.lock().unwrap().clone();
        Cluster {
            authority: self.authority.clone(),
            roster: Arc::new(Roster {
                members: Mutex::new(members),
            }),
        }
    }

    pub fn node_with(&self, id: u64, identity: Arc<Identity>, address: SocketAddr) -> Node {
        let bundle = Arc::new(Bundle::new(vec![self.authority.certificate().clone()]).unwrap());
        let service = Arc::new(Recorder::new(self.authority.clone(), self.roster.clone()));
        let peers = bind(Settings {
            socket: listen(address).unwrap(),
            identity: identity.clone(),
            bundle: bundle.clone(),
            membership: self.roster.clone(),
            service: service.clone(),
        })
        .unwrap();
        Node {
            id: NodeId(id),
            peers,
            identity,
            bundle,
            service,
        }
    }
}

impl Node {
    pub fn address(&self) -> SocketAddr {
        self.peers.local_address().unwrap()
    }

    pub fn knows(&self, other: &Node) {
        self.peers.set_address(other.id, other.address());
    }

    pub async fn ping(&self, other: NodeId) -> Result<(), PeerError> {
        let request = PeerRequest::Ping(Box::new(Nonce { nonce: 7 }));
        // Long: on a host under load, handshakes of unoptimised code are slow.
        let answer = self
            .peers
            .call_within(other, request, Duration::from_secs(10))
            .await?;
        assert_eq!(answer, PeerAnswer::Pong(Box::new(Nonce { nonce: 7 })));
        Ok(())
    }

    pub async fn echo_stream(&self, other: NodeId, class: Class) -> (FrameSender, FrameReceiver) {
        self.peers.open(other, class, hello(class)).await.unwrap()
    }
}

pub fn hello(class: Class) -> Hello {
    match class {
        Class::Control => Hello::Engine(Box::new(Replica {
            replica: proto::ReplicaId(1),
        })),
        Class::Bulk => Hello::Blob(Box::new(Blob {
            name: "weights".to_owned(),
        })),
        Class::Activations => Hello::Stage(Box::new(Stage {
            replica: proto::ReplicaId(1),
            epoch: proto::Epoch(2),
            stage: 0,
        })),
    }
}

/// A message of the leader's that carries these bytes; [`Recorder`] sends them back.
pub fn raft(bytes: &[u8]) -> PeerRequest {
    let vote = Vote {
        term: 1,
        candidate: NodeId(1),
        standing: VoteStanding::Granted,
    };
    PeerRequest::Raft(Box::new(RaftRequest::Snapshot(Box::new(SnapshotPart {
        vote,
        meta: SnapshotMeta {
            last: None,
            membership: StoredMembership::default(),
            name: String::new(),
        },
        offset: 0,
        data: bytes.to_vec(),
        place: PartPlace::Last,
    }))))
}

pub fn echo(bytes: &[u8]) -> PeerAnswer {
    PeerAnswer::ModelText(Box::new(ModelText {
        frame: bytes.to_vec(),
    }))
}

fn refusal() -> PeerAnswer {
    PeerAnswer::Refused(Box::new(Refusal {
        reason: "not here".to_owned(),
    }))
}

/// A change that nobody agrees on.
pub fn never() -> PeerRequest {
    PeerRequest::Command(Box::new(Proposal {
        id: 1,
        command: ClusterCommand::RevokeKey(Box::new(KeyId {
            key_id: "never".to_owned(),
        })),
    }))
}

/// On a host under load, what a connection was closed with can be overwritten: when the farewell is answered, the other
/// side has already forgotten the connection, and says so.
pub fn assert_closed_with(found: &str, words: &str) {
    assert!(
        found.contains(words) || found.contains("reset by peer"),
        "{found}"
    );
}

/// Waits until it holds; fails after `wait_max`, and gives how long it took.
pub async fn until(what: &str, wait_max: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < wait_max, "{what} within {wait_max:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

/// Echoes, and remembers what it was asked.
pub struct Recorder {
    authority: Arc<Authority>,
    roster: Arc<Roster>,
    pub calls: Mutex<Vec<(NodeId, PeerRequest)>>,
    pub streams: Mutex<Vec<(NodeId, Class, Hello)>>,
    /// Payloads of streams.
    pub heard: Mutex<Vec<Bytes>>,
    pub joins: Mutex<Vec<JoinRequest>>,
    pub renewals: Mutex<Vec<SpkiHash>>,
    /// How many calls began and have neither ended nor been given up.
    pub under_way: Arc<Mutex<usize>>,
}

struct UnderWay(Arc<Mutex<usize>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.lock().unwrap() -= 1;
    }
}

impl Recorder {
    fn new(authority: Arc<Authority>, roster: Arc<Roster>) -> Recorder {
        Recorder {
            authority,
            roster,
            calls: Mutex::default(),
            streams: Mutex::default(),
            heard: Mutex::default(),
            joins: Mutex::default(),
            renewals: Mutex::default(),
            under_way: Arc::default(),
        }
    }

    fn under_way(&self) -> UnderWay {
        *self.under_way.lock().unwrap() += 1;
        UnderWay(self.under_way.clone())
    }

    fn signed(&self, csr: &[u8], node: NodeId) -> Vec<u8> {
        let certificate = self.authority.sign(csr, node, clock::unix_secs()).unwrap();
        certificate.to_vec()
    }
}

impl Service for Recorder {
    fn call(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'_, PeerAnswer> {
        Box::pin(async move {
            let _under_way = self.under_way();
            self.calls.lock().unwrap().push((from, request.clone()));
            match request {
                PeerRequest::Ping(nonce) => PeerAnswer::Pong(nonce),
                PeerRequest::Raft(message) => match *message {
                    RaftRequest::Snapshot(part) => echo(&part.data),
                    RaftRequest::Append(_) | RaftRequest::Vote(_) => refusal(),
                },
                PeerRequest::Command(_) => std::future::pending().await,
                PeerRequest::ReadIndex(_)
                | PeerRequest::ModelText(_)
                | PeerRequest::AuthorityKey(_)
                | PeerRequest::SignedBy(_)
                | PeerRequest::StageAt(_)
                | PeerRequest::Holds(_)
                | PeerRequest::Manifest(_)
                | PeerRequest::Outlook(_)
                | PeerRequest::Papers(_) => refusal(),
            }
        })
    }

    fn stream(
        &self,
        from: NodeId,
        class: Class,
        hello: Hello,
        mut sender: FrameSender,
        mut receiver: FrameReceiver,
    ) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.streams.lock().unwrap().push((from, class, hello));
            while let Ok(Some(frame)) = receiver.next().await {
                let (kind, epoch, payload) = (frame.kind, frame.epoch, Bytes::copy_from_slice(frame.payload));
                self.heard.lock().unwrap().push(payload.clone());
                let sent = match kind {
                    Kind::ToEngine => {
                        let message = proto::engine::FromEngine::Drained;
                        sender.send(Kind::FromEngine, epoch, &message).await
                    }
                    _ => sender.send_chunk(epoch, payload).await,
                };
                if sent.is_err() {
                    return;
                }
            }
            sender.finish();
            sender.stopped().await;
        })
    }

    fn join(&self, _from: SocketAddr, request: JoinRequest) -> BoxFuture<'_, JoinAnswer> {
        Box::pin(async move {
            self.joins.lock().unwrap().push(request.clone());
            let JoinRequest::V1(joining) = request;
            let node = NodeId(77);
            let spki = crate::trust::authority::requested_spki(&joining.csr).unwrap();
            self.roster.add(spki, node.0, Role::Worker);
            JoinAnswer::Welcome(Box::new(Welcome {
                node,
                certificate: self.signed(&joining.csr, node),
                authorities: vec![self.authority.certificate().to_vec()],
                members: Vec::new(),
            }))
        })
    }

    fn renew(&self, spki: SpkiHash, request: RenewRequest) -> BoxFuture<'_, RenewAnswer> {
        Box::pin(async move {
            self.renewals.lock().unwrap().push(spki);
            let RenewRequest::V1(renewing) = request;
            let (node, _) = self.roster.member(&spki).unwrap();
            RenewAnswer::Renewed(Box::new(Renewed {
                certificate: self.signed(&renewing.csr, node),
                authorities: vec![self.authority.certificate().to_vec()],
            }))
        })
    }
}
