//! Certificates named by the person: believed as authorities, and also as what a server itself shows.
//!
//! The second is what a self-signed certificate needs: it is its own authority, which the usual rules refuse where it
//! says so (`CA:TRUE`, as `openssl req -x509` does). Whoever holds the key of exactly this certificate is whom the
//! person means, so its names and dates do not matter.

use crate::trust::signatures::usual_signatures;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{Error, RootCertStore};
use std::sync::Arc;

#[derive(Debug)]
pub struct Pinned {
    certificates: Vec<CertificateDer<'static>>,
    usual: Arc<WebPkiServerVerifier>,
}

impl Pinned {
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> anyhow::Result<Pinned> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Pinned {
            certificates,
            usual: WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?,
        })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.certificates.iter().any(|known| known == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.usual
            .verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    usual_signatures!();
}
