//! The node's certificate, renewed at half of its life, and whose signatures it believes, as the log says.

use super::custody::Custody;
use super::folder::DataFolder;
use crate::clock;
use crate::raft::AppliedState;
use crate::transport::Peers;
use crate::trust::{self, Authority, Bundle, Identity, TrustError};
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
    bundle: &Bundle,
    custody: &Custody,
    folder: &DataFolder,
    node: NodeId,
) -> Result<(), TrustError> {
    let authorities = bundle.authorities();
    let authority = custody.first_of(&authorities);
    // Nobody believes one that was damaged on the disk.
    let is_due = || identity.is_due(clock::unix_secs()) || identity.signed_by(&authorities).is_none();
    match authority.filter(|_| is_due()) {
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

/// Why another certificate is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Want {
    /// This one runs out, or nobody believes it: any that is believed will do.
    Any,
    /// It is of the authority at this place among those who are believed: one of an earlier one.
    Better(usize),
}

impl Want {
    fn takes(self, place: usize) -> bool {
        match self {
            Want::Any => true,
            Want::Better(than) => place < than,
        }
    }
}

impl Renewal {
    async fn look(&self) {
        self.follow_authorities();
        let believed = self.bundle.authorities();
        let Some(signing) = believed.first() else {
            return;
        };
        if self.may_hold() && !self.custody.holds(signing) {
            let holders = self.holders();
            let fetched = self
                .custody
                .fetch(signing, &believed, &holders, &self.peers, &self.folder);
            if let Err(reason) = fetched.await {
                tracing::debug!(reason, "the authority's key is not here yet");
            }
        }
        let want = match self.identity.signed_by(&believed) {
            Some(_) | None if self.identity.is_due(clock::unix_secs()) => Want::Any,
            None => Want::Any,
            Some(0) => return,
            Some(place) => Want::Better(place),
        };
        if let Err(reason) = self.renew(&believed, want).await {
            tracing::warn!(reason, "the certificate could not be renewed; it is tried again");
        }
    }

    /// Where nobody can give what is wanted, and what is there does as well, nothing is done.
    async fn renew(&self, believed: &[CertificateDer<'static>], want: Want) -> Result<(), String> {
        if let Some(authority) = self.custody.first_of(believed) {
            let place = believed.iter().position(|known| known == authority.certificate());
            return match place.is_some_and(|place| want.takes(place)) {
                true => sign_own(&self.identity, &authority, &self.folder, self.node)
                    .map_err(|error| error.to_string()),
                false => Ok(()),
            };
        }
        let csr = self.identity.csr().map_err(|error| error.to_string())?;
        let mut reason = "no node that may sign is known".to_owned();
        for holder in self.holders() {
            let request = RenewRequest::V1(Box::new(Renewing { csr: csr.clone() }));
            match self.peers.renew(holder, request).await {
                Ok(RenewAnswer::Renewed(renewed)) => {
                    let mut chain = vec![CertificateDer::from(renewed.certificate)];
                    match trust::signer_of(&chain[0], believed) {
                        Some(place) if want.takes(place) => {
                            chain.extend(renewed.authorities.into_iter().map(CertificateDer::from));
                            let set = self.identity.set_chain(chain);
                            let stored = set.and_then(|()| self.identity.store_chain(&self.folder.chain()));
                            return stored.map_err(|error| error.to_string());
                        }
                        Some(_) => reason = format!("node {holder} does not hold the authority that signs"),
                        None => {
                            reason = format!("node {holder} signs with one that this node does not believe")
                        }
                    }
                }
                Ok(RenewAnswer::Refused(refused)) => reason = refused.reason,
                Err(error) => reason = error.to_string(),
            }
        }
        match want {
            Want::Any => Err(reason),
            Want::Better(_) => {
                tracing::debug!(reason, "no certificate of the authority that signs yet");
                Ok(())
            }
        }
    }

    /// Never back to what the log said before: a node that starts reads its log once more, and would believe those no more
    /// whom everybody shows by now.
    fn follow_authorities(&self) {
        let (committed, version) = {
            let applied = self.applied.read();
            (applied.authorities().to_vec(), applied.version())
        };
        let committed: Vec<CertificateDer<'static>> =
            committed.into_iter().map(CertificateDer::from).collect();
        let believed = self.bundle.authorities();
        if committed.is_empty() || committed == believed || version < self.folder.authorities_as_of() {
            return;
        }
        let gone: Vec<CertificateDer<'static>> = believed
            .into_iter()
            .filter(|known| !committed.contains(known))
            .collect();
        if let Err(error) = self.believe(committed, version, &gone) {
            tracing::error!(%error, "the cluster's authorities could not be taken over");
        }
    }

    fn believe(
        &self,
        committed: Vec<CertificateDer<'static>>,
        version: u64,
        gone: &[CertificateDer<'static>],
    ) -> Result<(), TrustError> {
        self.bundle.replace(committed)?;
        let remembered = self.folder.remember_as_of(version);
        remembered.map_err(|error| TrustError::Bundle(error.to_string()))?;
        self.bundle.store(&self.folder.authorities())?;
        self.custody.forget(gone, &self.folder)
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
