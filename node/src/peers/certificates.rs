//! The node's certificate, renewed at half of its life, and whose signatures it believes, as the log says.

use super::custody::Custody;
use super::folder::DataFolder;
use crate::clock;
use crate::raft::AppliedState;
use crate::transport::Peers;
use crate::trust::{Authority, Bundle, Identity, TrustError};
use proto::NodeId;
use proto::cluster::Role;
use proto::join::{RenewAnswer, RenewRequest, Renewing};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Wall clocks jump, so it is looked at often rather than waited for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub struct Renewal {
    pub node: NodeId,
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub custody: Custody,
    pub folder: Arc<DataFolder>,
    pub applied: AppliedState,
    pub peers: Peers,
}

/// For as long as the node lives.
pub async fn keep(renewal: Renewal) {
    let mut changes = renewal.applied.changes();
    loop {
        renewal.look().await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Whoever holds the authority's key needs nobody else. Does nothing while the certificate is fresh.
pub fn renew_own(
    identity: &Identity,
    custody: &Custody,
    folder: &DataFolder,
    node: NodeId,
) -> Result<(), TrustError> {
    match custody
        .authority()
        .filter(|_| identity.is_due(clock::unix_secs()))
    {
        Some(authority) => sign_own(identity, &authority, folder, node),
        None => Ok(()),
    }
}

fn sign_own(
    identity: &Identity,
    authority: &Authority,
    folder: &DataFolder,
    node: NodeId,
) -> Result<(), TrustError> {
    let certificate = authority.sign(&identity.csr()?, node, clock::unix_secs())?;
    identity.set_chain(vec![certificate, authority.certificate().clone()])?;
    identity.store_chain(&folder.chain())
}

impl Renewal {
    async fn look(&self) {
        self.follow_authorities();
        let Some(signing) = self.bundle.authorities().into_iter().next() else {
            return;
        };
        if self.may_hold() && !self.custody.is(&signing) {
            let holders = self.holders();
            let fetched = self.custody.fetch(&signing, &holders, &self.peers, &self.folder);
            if let Err(reason) = fetched.await {
                tracing::debug!(reason, "the authority's key is not here yet");
            }
        }
        let is_of_another = self.identity.signed_by(std::slice::from_ref(&signing)).is_none();
        if (self.identity.is_due(clock::unix_secs()) || is_of_another)
            && let Err(reason) = self.renew().await
        {
            tracing::warn!(reason, "the certificate could not be renewed; it is tried again");
        }
    }

    async fn renew(&self) -> Result<(), String> {
        if let Some(authority) = self.custody.authority() {
            let signed = sign_own(&self.identity, &authority, &self.folder, self.node);
            return signed.map_err(|error| error.to_string());
        }
        let csr = self.identity.csr().map_err(|error| error.to_string())?;
        let mut reason = "no node that may sign is known".to_owned();
        for holder in self.holders() {
            let request = RenewRequest::V1(Box::new(Renewing { csr: csr.clone() }));
            match self.peers.renew(holder, request).await {
                Ok(RenewAnswer::Renewed(renewed)) => {
                    let mut chain = vec![CertificateDer::from(renewed.certificate)];
                    chain.extend(renewed.authorities.into_iter().map(CertificateDer::from));
                    let set = self.identity.set_chain(chain);
                    let stored = set.and_then(|()| self.identity.store_chain(&self.folder.chain()));
                    return stored.map_err(|error| error.to_string());
                }
                Ok(RenewAnswer::Refused(refused)) => reason = refused.reason,
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }

    fn follow_authorities(&self) {
        let committed = self.applied.read().authorities().to_vec();
        let committed: Vec<CertificateDer<'static>> =
            committed.into_iter().map(CertificateDer::from).collect();
        if committed.is_empty() || committed == self.bundle.authorities() {
            return;
        }
        let replaced = self.bundle.replace(committed);
        if let Err(error) = replaced.and_then(|()| self.bundle.store(&self.folder.authorities())) {
            tracing::error!(%error, "the cluster's authorities could not be taken over");
        }
    }

    fn may_hold(&self) -> bool {
        let state = self.applied.read();
        state
            .member(self.node)
            .is_some_and(|member| member.role == Role::Voter)
    }

    fn holders(&self) -> Vec<NodeId> {
        let state = self.applied.read();
        let others = state
            .members()
            .filter(|member| member.role == Role::Voter && member.node != self.node);
        others.map(|member| member.node).collect()
    }
}
