//! A stage's own port, for the other stages of its replica.

use crate::shard_host::setup::{LinkMember, LinkSetup};
use crate::transport::{self, Membership, Peers, Service, Settings};
use crate::trust::{Bundle, Identity, SpkiHash, TrustError};
use anyhow::Context;
use proto::NodeId;
use proto::join::Role;
use proto::stage::{StageAddress, StageTrust};
use rustls::pki_types::CertificateDer;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::runtime::{self, Runtime};

/// One reads the socket, opens what came and hands it on, and sends: a second one would be woken in between, which takes
/// longer than all of it. A message of 64 bytes and its echo take 25 to 30 µs with one thread at each end and 60 to 80 with two, and
/// 1 MiB 1.7 ms instead of 2.4 (`link_bench`, which sends one way at a time).
const THREADS: usize = 1;

/// Serves until it is dropped.
pub struct StageLinks {
    pub peers: Peers,
    pub runtime: Runtime,
    pub trust: LinkTrust,
    node: NodeId,
    address: SocketAddr,
}

impl StageLinks {
    /// Speaks as the node that the stage belongs to, with nobody but the nodes of its replica.
    pub fn start(setup: &LinkSetup, service: Arc<dyn Service>) -> anyhow::Result<StageLinks> {
        // Of several threads, though it has one: `head::tell` gives it up while a stage's mailbox is full.
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("stage-links")
            .enable_all()
            .build()
            .context("threads for the other stages")?;
        let ip: IpAddr = setup.ip.parse().context("the address for the other stages")?;
        let identity = Identity::from_key_pem(&setup.key)?;
        identity.set_chain(certificates(&setup.chain))?;
        let trust = LinkTrust {
            identity: Arc::new(identity),
            bundle: Arc::new(Bundle::new(certificates(&setup.authorities))?),
        };
        let settings = Settings {
            socket: transport::listen(SocketAddr::new(ip, 0))?,
            identity: Arc::clone(&trust.identity),
            bundle: Arc::clone(&trust.bundle),
            membership: Arc::new(Members(setup.members.clone())),
            service,
        };
        let peers = {
            let _inside = runtime.enter();
            transport::bind(settings)?
        };
        let address = peers.local_address().context("the port for the other stages")?;
        Ok(StageLinks {
            peers,
            runtime,
            trust,
            node: setup.node,
            address,
        })
    }

    pub fn address(&self) -> StageAddress {
        StageAddress {
            node: self.node,
            quic: self.address.to_string(),
        }
    }
}

/// What the stage shows, and believes. Cheap to copy.
#[derive(Clone)]
pub struct LinkTrust {
    identity: Arc<Identity>,
    bundle: Arc<Bundle>,
}

impl LinkTrust {
    /// For new connections; those that are there stay.
    pub fn renew(&self, renewed: &StageTrust) -> Result<(), TrustError> {
        self.identity.set_chain(certificates(&renewed.chain))?;
        self.bundle.replace(certificates(&renewed.authorities))
    }
}

fn certificates(der: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    der.iter().cloned().map(CertificateDer::from).collect()
}

/// Those that the cluster has placed a stage on. Where that changes, this process ends.
struct Members(Vec<LinkMember>);

impl Membership for Members {
    fn member(&self, spki: &SpkiHash) -> Option<(NodeId, Role)> {
        let member = self.0.iter().find(|member| member.spki == *spki)?;
        Some((member.node, member.role))
    }
}
