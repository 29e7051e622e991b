//! Both ends of the links: their keys, who is a member, and the service that echoes.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use node::clock;
use node::transport::{Class, FrameReceiver, FrameSender, Membership, Service};
use node::trust::{Authority, Bundle, Identity, SpkiHash};
use proto::NodeId;
use proto::join::{JoinAnswer, JoinRequest, Refused, RenewAnswer, RenewRequest, Role};
use proto::peer::{Hello, PeerAnswer, PeerRequest, Refusal};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy)]
pub enum End {
    Listening = 1,
    Connecting = 2,
}

impl End {
    pub fn node(self) -> NodeId {
        NodeId(self as u64)
    }

    fn name(self) -> &'static str {
        match self {
            End::Listening => "listening",
            End::Connecting => "connecting",
        }
    }
}

pub struct Ends {
    identities: [Arc<Identity>; 2],
    bundle: Arc<Bundle>,
}

/// What one end knows.
#[derive(Clone)]
pub struct Here {
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub members: Arc<Members>,
}

pub struct Members([(SpkiHash, NodeId); 2]);

const READY: &str = "ready";

impl Ends {
    pub fn make(folder: &Path) -> Ends {
        let now_secs = clock::unix_secs();
        let authority = Authority::make(now_secs).expect("an authority");
        for end in [End::Listening, End::Connecting] {
            let identity = Identity::make().expect("a key");
            let csr = identity.csr().expect("a request");
            let certificate = authority.sign(&csr, end.node(), now_secs).expect("a certificate");
            identity
                .set_chain(vec![certificate, authority.certificate().clone()])
                .expect("a chain");
            identity.store_key(&folder.join(end.name())).expect("a file");
            identity
                .store_chain(&folder.join(format!("{}.pem", end.name())))
                .expect("a file");
        }
        let bundle = Bundle::new(vec![authority.certificate().clone()]).expect("a bundle");
        bundle.store(&folder.join("bundle.pem")).expect("a file");
        Ends::load(folder)
    }

    /// The other side may begin.
    pub fn publish(&self, folder: &Path) {
        std::fs::write(folder.join(READY), "").expect("a file");
    }

    pub async fn wait_for(folder: &Path) -> Ends {
        while !folder.join(READY).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ends::load(folder)
    }

    pub fn here(&self, end: End) -> Here {
        let of = |end: End| (self.identities[end as usize - 1].spki_hash(), end.node());
        Here {
            identity: self.identities[end as usize - 1].clone(),
            bundle: self.bundle.clone(),
            members: Arc::new(Members([of(End::Listening), of(End::Connecting)])),
        }
    }

    fn load(folder: &Path) -> Ends {
        let identity = |end: End| {
            let certificates = folder.join(format!("{}.pem", end.name()));
            Arc::new(Identity::load(&folder.join(end.name()), &certificates).expect("an identity"))
        };
        Ends {
            identities: [identity(End::Listening), identity(End::Connecting)],
            bundle: Arc::new(Bundle::load(&folder.join("bundle.pem")).expect("a bundle")),
        }
    }
}

impl Membership for Members {
    fn member(&self, spki: &SpkiHash) -> Option<(NodeId, Role)> {
        let found = self.0.iter().find(|(known, _)| known == spki);
        found.map(|(_, node)| (*node, Role::Voter))
    }
}

pub struct Echoing;

impl Service for Echoing {
    fn call(&self, _from: NodeId, _request: PeerRequest) -> BoxFuture<'_, PeerAnswer> {
        let reason = "only streams here".to_owned();
        Box::pin(async { PeerAnswer::Refused(Box::new(Refusal { reason })) })
    }

    fn stream(
        &self,
        _from: NodeId,
        _class: Class,
        _hello: Hello,
        mut sender: FrameSender,
        mut receiver: FrameReceiver,
    ) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while let Ok(Some((epoch, payload))) = receiver.next_chunk().await {
                if sender.send_chunk(epoch, Bytes::from(payload)).await.is_err() {
                    return;
                }
            }
        })
    }

    fn join(&self, _from: SocketAddr, _request: JoinRequest) -> BoxFuture<'_, JoinAnswer> {
        let reason = "nobody joins here".to_owned();
        Box::pin(async { JoinAnswer::Refused(Box::new(Refused { reason })) })
    }

    fn renew(&self, _spki: SpkiHash, _request: RenewRequest) -> BoxFuture<'_, RenewAnswer> {
        let reason = "nothing is renewed here".to_owned();
        Box::pin(async { RenewAnswer::Refused(Box::new(Refused { reason })) })
    }
}
