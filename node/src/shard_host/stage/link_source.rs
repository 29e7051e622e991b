use crate::shard_host::setup::{LinkMember, LinkSetup};
use crate::trust::{Bundle, Identity};
use proto::NodeId;
use proto::engine::ToEngine;
use proto::stage::StageTrust;
use proto::wire::{self, Kind};
use rustls::pki_types::CertificateDer;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Certificates are renewed hours before they run out.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What a stage on this node needs in order to speak with the others, as it is when it starts: certificates are renewed,
/// and authorities change.
#[derive(Clone)]
pub struct LinkSource {
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub node: NodeId,
    /// Where other nodes reach this host; the stage takes a port of its own there.
    pub ip: IpAddr,
    pub members: Vec<LinkMember>,
}

impl LinkSource {
    pub fn setup(&self) -> LinkSetup {
        let StageTrust { chain, authorities } = self.trust();
        LinkSetup {
            node: self.node,
            ip: self.ip.to_string(),
            key: self.identity.key_pem(),
            chain,
            authorities,
            members: self.members.clone(),
        }
    }

    /// Tells a stage that runs of what has been renewed. Never ends.
    pub async fn keep_trusted(&self, to_stage: mpsc::UnboundedSender<Vec<u8>>) {
        let mut told = self.trust();
        loop {
            sleep(LOOK_EVERY).await;
            let now = self.trust();
            if now != told {
                told = now.clone();
                let message = ToEngine::Trust(Box::new(now));
                // A stage that has ended is seen to by somebody else.
                let _ = to_stage.send(wire::frame(Kind::ToEngine, 0, &message));
            }
        }
    }

    fn trust(&self) -> StageTrust {
        let chain = self.identity.chain().unwrap_or_default();
        let authorities = self.bundle.authorities();
        let der = |certificates: Vec<CertificateDer<'static>>| {
            let bytes = certificates.iter().map(|certificate| certificate.to_vec());
            bytes.collect()
        };
        StageTrust {
            chain: der(chain),
            authorities: der(authorities),
        }
    }
}
