//! The authorities that are trusted now.

use super::certificate::Facts;
use super::{SpkiHash, TrustError, pem_file};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// While a cluster changes its authority, the old and the new one.
const AUTHORITIES_MAX: usize = 2;

/// One authority, or two during a change. Can be replaced while it is used: handshakes from then on follow the new set.
pub struct Bundle {
    current: RwLock<Arc<Trusted>>,
}

/// One set, with rustls' verifiers ready.
pub(super) struct Trusted {
    authorities: Vec<CertificateDer<'static>>,
    spki_hashes: Vec<SpkiHash>,
    pub(super) of_servers: Arc<WebPkiServerVerifier>,
    pub(super) of_clients: Arc<dyn ClientCertVerifier>,
}

impl Bundle {
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Bundle, TrustError> {
        Ok(Bundle {
            current: RwLock::new(Arc::new(Trusted::new(authorities)?)),
        })
    }

    /// From a PEM file, as [`Bundle::store`] writes it.
    pub fn load(path: &Path) -> Result<Bundle, TrustError> {
        let text = pem_file::read(path)?;
        let bundle = Bundle::new(pem_file::parse_certificates(path, &text)?);
        bundle.map_err(|error| error.in_file(path))
    }

    pub fn store(&self, path: &Path) -> Result<(), TrustError> {
        pem_file::write(path, &pem_file::certificates(&self.trusted().authorities))
    }

    pub fn replace(&self, authorities: Vec<CertificateDer<'static>>) -> Result<(), TrustError> {
        let trusted = Arc::new(Trusted::new(authorities)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = trusted;
        Ok(())
    }

    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.trusted().authorities.clone()
    }

    /// What tokens may pin.
    pub fn spki_hashes(&self) -> Vec<SpkiHash> {
        self.trusted().spki_hashes.clone()
    }

    pub(super) fn trusted(&self) -> Arc<Trusted> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Bundle")
            .field("authorities", &self.trusted().authorities.len())
            .finish()
    }
}

impl Trusted {
    fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Trusted, TrustError> {
        if authorities.is_empty() || authorities.len() > AUTHORITIES_MAX {
            return Err(TrustError::Bundle(format!(
                "there are {} certificates in it; there must be one, or two while the cluster changes its authority",
                authorities.len()
            )));
        }
        let mut roots = RootCertStore::empty();
        let mut spki_hashes = Vec::new();
        for authority in &authorities {
            spki_hashes.push(Facts::of(authority)?.spki);
            roots.add(authority.clone()).map_err(bundle_error)?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Trusted {
            authorities,
            spki_hashes,
            of_servers: WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .map_err(bundle_error)?,
            of_clients: WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(bundle_error)?,
        })
    }
}

fn bundle_error(error: impl fmt::Display) -> TrustError {
    TrustError::Bundle(error.to_string())
}
