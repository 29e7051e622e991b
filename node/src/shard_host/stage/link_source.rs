use crate::shard_host::setup::{LinkMember, LinkSetup};
use crate::trust::{Bundle, Identity};
use proto::NodeId;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a stage on this node needs in order to speak with the others, as it is when it starts: certificates are renewed,
/// and authorities change.
#[derive(Clone)]
pub struct LinkSource {
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub node: NodeId,
    /// Of the node; the stage takes another port of the same host.
    pub address: SocketAddr,
    pub members: Vec<LinkMember>,
}

impl LinkSource {
    pub fn setup(&self) -> LinkSetup {
        let chain = self.identity.chain().unwrap_or_default();
        LinkSetup {
            node: self.node,
            host: self.address.to_string(),
            key: self.identity.key_pem(),
            chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
            authorities: self
                .bundle
                .authorities()
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
            members: self.members.clone(),
        }
    }
}
