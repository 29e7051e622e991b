//! The authority's key: on the disks of the nodes that may vote, and nowhere else.
//!
//! Whoever holds it can let in whom he likes, so workers never do. A new node that may vote asks another one for it over
//! its authenticated connection; it is never in the log, nor in a backup of the cluster's state.
//!
//! While one authority takes over from another a node holds both, and neither is ever written over: each may be the one
//! that is left.

use super::folder::{AuthorityPlace, DataFolder};
use crate::transport::Peers;
use crate::trust::{Authority, SpkiHash, TrustError};
use proto::NodeId;
use proto::peer::{AuthorityKey, PeerAnswer, PeerRequest, ReadRequest};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, MutexGuard};

/// What this node holds of it. Cheap to copy.
#[derive(Clone, Default)]
pub struct Custody(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: RwLock<Vec<Held>>,
    /// Whoever has this may put another one in its place.
    exchange: Mutex<()>,
}

#[derive(Clone)]
struct Held {
    place: AuthorityPlace,
    authority: Arc<Authority>,
}

impl Custody {
    /// From the data folder, as far as they are there.
    pub fn load(folder: &DataFolder) -> Result<Custody, TrustError> {
        let custody = Custody::default();
        for place in AuthorityPlace::ALL {
            let (certificate, key) = (folder.authority_certificate(place), folder.authority_key(place));
            // A node that was killed while it wrote has one of the two.
            if certificate.exists() && key.exists() {
                custody.hold(place, Authority::load(&certificate, &key)?);
            }
        }
        Ok(custody)
    }

    /// For a cluster that begins with this node: what it holds already, or a new one.
    pub fn any_or_new(&self, folder: &DataFolder, now_secs: u64) -> Result<Arc<Authority>, TrustError> {
        let any = self.held().first().map(|held| held.authority.clone());
        match any {
            Some(authority) => Ok(authority),
            None => self.keep(Authority::make(now_secs)?, &[], folder),
        }
    }

    /// While a new authority is made here nothing else is put in a place that it may need.
    pub async fn exchange(&self) -> MutexGuard<'_, ()> {
        self.0.exchange.lock().await
    }

    /// The first of those who are believed that this node can sign for. `None`: another one has to be asked.
    pub fn first_of(&self, believed: &[CertificateDer<'_>]) -> Option<Arc<Authority>> {
        let held = self.held();
        let find = |certificate: &CertificateDer<'_>| {
            let found = held
                .iter()
                .find(|held| held.authority.certificate() == certificate);
            found.map(|held| held.authority.clone())
        };
        believed.iter().find_map(find)
    }

    pub fn holds(&self, certificate: &CertificateDer<'_>) -> bool {
        self.first_of(std::slice::from_ref(certificate)).is_some()
    }

    /// All that are held.
    pub fn ids(&self) -> BTreeSet<SpkiHash> {
        let held = self.held();
        held.iter().map(|held| held.authority.spki_hash()).collect()
    }

    /// For a member that may vote: the one that this node signs with.
    pub fn hand_over(&self, believed: &[CertificateDer<'_>]) -> Option<AuthorityKey> {
        let authority = self.first_of(believed)?;
        Some(AuthorityKey {
            certificate: authority.certificate().to_vec(),
            key: authority.key_pem(),
        })
    }

    /// On the disk when this returns, and held from then on. Never in the place of one that is believed.
    pub fn keep(
        &self,
        authority: Authority,
        believed: &[CertificateDer<'_>],
        folder: &DataFolder,
    ) -> Result<Arc<Authority>, TrustError> {
        if let Some(held) = self.first_of(std::slice::from_ref(authority.certificate())) {
            return Ok(held);
        }
        let is_free = |place: &AuthorityPlace| {
            let held = self.held();
            let there = held.iter().find(|held| held.place == *place);
            there.is_none_or(|there| !believed.contains(there.authority.certificate()))
        };
        let place = AuthorityPlace::ALL.into_iter().find(is_free).ok_or_else(|| {
            TrustError::Key("two others are held and believed; finish the rotation first".to_owned())
        })?;
        self.clear(place, folder)?;
        authority.store(&folder.authority_certificate(place), &folder.authority_key(place))?;
        Ok(self.hold(place, authority))
    }

    /// Those whom nobody believes any more: their keys are deleted.
    pub fn forget(&self, gone: &[CertificateDer<'_>], folder: &DataFolder) -> Result<(), TrustError> {
        for held in self.held() {
            if gone.contains(held.authority.certificate()) {
                self.clear(held.place, folder)?;
            }
        }
        Ok(())
    }

    /// Asks `holders` until one has the authority with this certificate, and keeps it beside those who are believed.
    pub async fn fetch(
        &self,
        wanted: &CertificateDer<'_>,
        believed: &[CertificateDer<'_>],
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
                    let kept = self.keep(authority, believed, folder);
                    return kept.map(|_| ()).map_err(|error| error.to_string());
                }
                Err(words) => reason = words,
            }
        }
        Err(reason)
    }

    fn clear(&self, place: AuthorityPlace, folder: &DataFolder) -> Result<(), TrustError> {
        let cleared = folder.clear_authority(place);
        cleared.map_err(|error| TrustError::Key(error.to_string()))?;
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| held.place != place);
        Ok(())
    }

    fn hold(&self, place: AuthorityPlace, authority: Authority) -> Arc<Authority> {
        let authority = Arc::new(authority);
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        held.push(Held {
            place,
            authority: authority.clone(),
        });
        authority
    }

    fn held(&self) -> Vec<Held> {
        self.0.held.read().unwrap_or_else(PoisonError::into_inner).clone()
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

    fn folder(name: &str) -> DataFolder {
        let folder = std::env::temp_dir().join(format!("cluster-custody-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        DataFolder::lock(&folder).unwrap()
    }

    fn authority() -> Authority {
        Authority::make(clock::unix_secs()).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_fetched_while_an_authority_is_just_made() {
        let folder = folder("made");
        let node = Cluster::new().node(1);
        let old = authority();
        let custody = Custody::default();
        let fetch = || custody.fetch(old.certificate(), &[], &[], &node.peers, &folder);
        let making = custody.exchange().await;
        assert!(fetch().await.unwrap_err().contains("made here"));
        drop(making);
        assert!(fetch().await.unwrap_err().contains("no node that may vote"));
    }

    #[test]
    fn nothing_takes_the_place_of_one_that_is_believed() {
        let folder = folder("places");
        let custody = Custody::default();
        let old = custody.keep(authority(), &[], &folder).unwrap();
        let mut believed = vec![old.certificate().clone()];
        let new = custody.keep(authority(), &believed, &folder).unwrap();
        believed.insert(0, new.certificate().clone());
        let again = Custody::load(&folder).unwrap();
        assert_eq!(again.ids(), [old.spki_hash(), new.spki_hash()].into());
        assert_eq!(again.first_of(&believed).unwrap().spki_hash(), new.spki_hash());
        assert!(custody.keep(authority(), &believed, &folder).is_err());
        // The old one takes it back, and another rotation begins.
        custody.forget(&believed[..1], &folder).unwrap();
        assert!(custody.first_of(&believed[..1]).is_none());
        let next = custody.keep(authority(), &believed[1..], &folder).unwrap();
        let again = Custody::load(&folder).unwrap();
        assert_eq!(again.ids(), [old.spki_hash(), next.spki_hash()].into());
    }

    #[test]
    fn one_that_was_made_and_never_agreed_on_stands_in_nobodys_way() {
        let folder = folder("unheard");
        let custody = Custody::default();
        let old = custody.keep(authority(), &[], &folder).unwrap();
        let believed = [old.certificate().clone()];
        custody.keep(authority(), &believed, &folder).unwrap();
        let agreed = custody.keep(authority(), &believed, &folder).unwrap();
        assert_eq!(custody.ids(), [old.spki_hash(), agreed.spki_hash()].into());
    }

    #[test]
    fn a_key_without_its_certificate_is_none() {
        let folder = folder("half");
        Custody::default().keep(authority(), &[], &folder).unwrap();
        std::fs::remove_file(folder.authority_certificate(AuthorityPlace::First)).unwrap();
        assert!(Custody::load(&folder).unwrap().ids().is_empty());
    }
}
