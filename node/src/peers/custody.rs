//! The authority's key: on the disks of the nodes that may vote, and nowhere else.
//!
//! Whoever holds it can let in whom he likes, so workers never do. A new node that may vote asks another one for it over
//! its authenticated connection; it is never in the log, nor in a backup of the cluster's state.

use super::folder::DataFolder;
use crate::transport::Peers;
use crate::trust::{Authority, TrustError};
use proto::NodeId;
use proto::peer::{AuthorityKey, PeerAnswer, PeerRequest, ReadRequest};
use rustls::pki_types::CertificateDer;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, MutexGuard};

/// What this node holds of it. Cheap to copy.
#[derive(Clone, Default)]
pub struct Custody(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: RwLock<Option<Arc<Authority>>>,
    /// Whoever has this may put another one in its place.
    exchange: Mutex<()>,
}

impl Custody {
    /// From the data folder, where it is there.
    pub fn load(folder: &DataFolder) -> Result<Custody, TrustError> {
        let custody = Custody::default();
        if folder.authority_key().exists() {
            let authority = Authority::load(&folder.authority_certificate(), &folder.authority_key())?;
            custody.hold(authority);
        }
        Ok(custody)
    }

    /// While a new authority is made here, the log still names the old one first: it must not be fetched over the new one,
    /// which is nowhere else yet.
    pub async fn exchange(&self) -> MutexGuard<'_, ()> {
        self.0.exchange.lock().await
    }

    pub fn hold(&self, authority: Authority) {
        *self.0.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(authority));
    }

    /// `None`: it has to be asked of another node.
    pub fn authority(&self) -> Option<Arc<Authority>> {
        let held = self.0.held.read();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Is it this one?
    pub fn is(&self, certificate: &CertificateDer<'_>) -> bool {
        self.authority()
            .is_some_and(|held| held.certificate() == certificate)
    }

    /// For a member that may vote.
    pub fn hand_over(&self) -> Option<AuthorityKey> {
        let authority = self.authority()?;
        Some(AuthorityKey {
            certificate: authority.certificate().to_vec(),
            key: authority.key_pem(),
        })
    }

    /// Asks `holders` until one has the authority with this certificate, and keeps it for good.
    pub async fn fetch(
        &self,
        wanted: &CertificateDer<'_>,
        holders: &[NodeId],
        peers: &Peers,
        folder: &DataFolder,
    ) -> Result<(), String> {
        let Ok(_exchange) = self.0.exchange.try_lock() else {
            return Err("a new authority is made here just now".to_owned());
        };
        let mut reason = "no node that may vote is known".to_owned();
        for holder in holders {
            match ask(*holder, peers).await {
                Ok(authority) if authority.certificate() != wanted => {
                    reason = format!("node {holder} holds another one");
                }
                Ok(authority) => {
                    let stored = authority.store(&folder.authority_certificate(), &folder.authority_key());
                    stored.map_err(|error| error.to_string())?;
                    self.hold(authority);
                    return Ok(());
                }
                Err(words) => reason = words,
            }
        }
        Err(reason)
    }
}

async fn ask(holder: NodeId, peers: &Peers) -> Result<Authority, String> {
    let request = PeerRequest::AuthorityKey(Box::new(ReadRequest {}));
    let answer = peers
        .call(holder, request)
        .await
        .map_err(|error| error.to_string())?;
    match answer {
        PeerAnswer::AuthorityKey(key) => {
            let certificate = CertificateDer::from(key.certificate);
            Authority::from_parts(certificate, &key.key).map_err(|error| error.to_string())
        }
        answer => Err(answer.amiss()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::transport::tests::support::Cluster;

    #[tokio::test]
    async fn nothing_is_fetched_over_an_authority_that_is_just_made() {
        let folder = std::env::temp_dir().join(format!("cluster-custody-{}", std::process::id()));
        let folder = DataFolder::lock(&folder).unwrap();
        let node = Cluster::new().node(1);
        let old = Authority::make(clock::unix_secs()).unwrap();
        let custody = Custody::default();
        let fetch = || custody.fetch(old.certificate(), &[], &node.peers, &folder);
        let making = custody.exchange().await;
        assert!(fetch().await.unwrap_err().contains("made here"));
        drop(making);
        assert!(fetch().await.unwrap_err().contains("no node that may vote"));
    }
}
