//! A node's own key and its current certificate.

use super::certificate::Facts;
use super::{SpkiHash, TrustError, pem_file};
use proto::NodeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{SignatureScheme, crypto};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// The key is made on the node and never leaves it. The certificate can be exchanged while connections use it: those
/// that are there keep what they have shown, new ones show the new one.
pub struct Identity {
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    spki: SpkiHash,
    /// `None` until the cluster has let the node in.
    current: RwLock<Option<Arc<Shown>>>,
}

struct Shown {
    certified: Arc<CertifiedKey>,
    facts: Facts,
}

impl Identity {
    /// A new key, drawn now; no certificate yet.
    pub fn make() -> Result<Identity, TrustError> {
        Identity::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(key_error)?)
    }

    /// From the key's file and, where there is one that is not empty, the certificates'.
    pub fn load(key: &Path, certificates: &Path) -> Result<Identity, TrustError> {
        let identity = Identity::load_key(key)?;
        if !certificates.exists() {
            return Ok(identity);
        }
        let text = pem_file::read(certificates)?;
        if !text.is_empty() {
            let chain = pem_file::parse_certificates(certificates, &text)?;
            let set = identity.set_chain(chain);
            set.map_err(|error| error.in_file(certificates))?;
        }
        Ok(identity)
    }

    /// From its file, without a certificate.
    pub fn load_key(key: &Path) -> Result<Identity, TrustError> {
        let identity = Identity::from_key_pem(&pem_file::read(key)?);
        identity.map_err(|error| error.in_file(key))
    }

    /// `key` is PKCS#8 in PEM.
    pub fn from_key_pem(key: &str) -> Result<Identity, TrustError> {
        Identity::new(KeyPair::from_pem(key).map_err(key_error)?)
    }

    /// Writes the key's file, for its owner alone; written and synced when this returns.
    pub fn store_key(&self, key: &Path) -> Result<(), TrustError> {
        pem_file::write(key, &self.key_pem())
    }

    /// Writes the current chain, as [`Identity::store_key`] does. Nothing where there is none.
    pub fn store_chain(&self, certificates: &Path) -> Result<(), TrustError> {
        match self.chain() {
            Some(chain) => pem_file::write(certificates, &pem_file::certificates(&chain)),
            None => Ok(()),
        }
    }

    /// PKCS#8. For this node's disk and its shard hosts.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub fn spki_hash(&self) -> SpkiHash {
        self.spki
    }

    /// PKCS#10 in DER: this key, signed by itself, with no names.
    pub fn csr(&self) -> Result<Vec<u8>, TrustError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.key).map_err(key_error)?;
        Ok(request.der().to_vec())
    }

    /// From now on, new connections show this chain: the node's certificate, and the authority that signed it.
    /// Refused where it is not for this key or names no node.
    pub fn set_chain(&self, chain: Vec<CertificateDer<'static>>) -> Result<(), TrustError> {
        let first = chain
            .first()
            .ok_or_else(|| TrustError::Certificate("the chain is empty".to_owned()))?;
        let facts = Facts::of(first)?;
        if facts.spki != self.spki {
            return Err(TrustError::Certificate(
                "it was made for another key; ask the cluster to renew it".to_owned(),
            ));
        }
        if facts.node.is_none() {
            return Err(TrustError::Certificate("it names no node".to_owned()));
        }
        let shown = Shown {
            certified: Arc::new(CertifiedKey::new(chain, self.signing.clone())),
            facts,
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(shown));
        Ok(())
    }

    pub fn chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.shown().map(|shown| shown.certified.cert.clone())
    }

    /// Which of these has signed the current certificate; its place in the list.
    pub fn signed_by(&self, authorities: &[CertificateDer<'_>]) -> Option<usize> {
        let shown = self.shown()?;
        super::signer_of(shown.certified.cert.first()?, authorities)
    }

    /// Whom the current certificate names.
    pub fn node(&self) -> Option<NodeId> {
        self.shown().and_then(|shown| shown.facts.node)
    }

    /// Is it time for another certificate? There is none, half of the life of this one is over, or its life has not begun:
    /// whoever signed it had a clock that was ahead, and nobody whose clock is right would believe it.
    pub fn is_due(&self, now_secs: u64) -> bool {
        self.shown().is_none_or(|shown| {
            let (begin_secs, end_secs) = (shown.facts.not_before_secs, shown.facts.not_after_secs);
            let half_secs = end_secs.saturating_sub(begin_secs) / 2;
            !(begin_secs..begin_secs.saturating_add(half_secs)).contains(&now_secs)
        })
    }

    pub fn expires_at(&self) -> Option<u64> {
        self.shown().map(|shown| shown.facts.not_after_secs)
    }

    /// A secret that only this key's holder can derive, the same each time. `purpose` keeps different uses apart.
    pub fn derived_secret(&self, purpose: &str) -> [u8; 32] {
        let mut bytes = self.key.serialize_der();
        bytes.extend_from_slice(purpose.as_bytes());
        super::sha256(&bytes)
    }

    fn new(key: KeyPair) -> Result<Identity, TrustError> {
        let spki = super::sha256(&key.subject_public_key_info());
        let pem = key.serialize_pem();
        let private = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| TrustError::Key(error.to_string()))?;
        let signing = crypto::ring::sign::any_ecdsa_type(&private)
            .map_err(|error| TrustError::Key(format!("{error}; it must be one of ECDSA P-256")))?;
        Ok(Identity {
            key,
            signing,
            spki,
            current: RwLock::new(None),
        })
    }

    fn shown(&self) -> Option<Arc<Shown>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.shown().map(|shown| shown.certified.clone())
    }
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("node", &self.node())
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.shown().is_some()
    }
}

fn key_error(error: rcgen::Error) -> TrustError {
    TrustError::Key(error.to_string())
}
