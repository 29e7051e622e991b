//! What both sides of a connection verify about each other's certificates.
//!
//! A certificate must have been signed directly by an authority of the bundle. Whether it is still valid is not judged
//! here but by whoever uses the connection ([`PeerIdentity::is_current`]): a node whose certificate ran out while
//! everything was off may still have it renewed, and nothing else.

use super::certificate::Facts;
use super::signatures::usual_signatures;
use super::{Bundle, SERVER_NAME, SpkiHash, TrustError};
use proto::NodeId;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error};
use std::sync::Arc;
use std::time::Duration;

/// Whom the other side of a connection has proved to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// Of the key that it holds.
    pub spki: SpkiHash,
    /// What the authority called it when it signed.
    pub node: NodeId,
    pub not_before_secs: u64,
    pub not_after_secs: u64,
}

impl PeerIdentity {
    /// From the chain that a verified handshake has left behind.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, TrustError> {
        let first = chain
            .first()
            .ok_or_else(|| TrustError::Certificate("none was shown".to_owned()))?;
        let facts = Facts::of(first)?;
        Ok(PeerIdentity {
            spki: facts.spki,
            node: facts
                .node
                .ok_or_else(|| TrustError::Certificate("it names no node".to_owned()))?,
            not_before_secs: facts.not_before_secs,
            not_after_secs: facts.not_after_secs,
        })
    }

    /// `None`: the other side has shown no certificate.
    pub fn of_connection(connection: &quinn::Connection) -> Result<Option<PeerIdentity>, TrustError> {
        let identity = connection.peer_identity();
        match identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok()) {
            Some(chain) => PeerIdentity::of_chain(&chain).map(Some),
            None => Ok(None),
        }
    }

    /// Does the certificate hold at this time?
    pub fn is_current(&self, now_secs: u64) -> bool {
        (self.not_before_secs..=self.not_after_secs).contains(&now_secs)
    }
}

/// For the side that is dialled. A certificate is asked for; who has none is told apart by the protocol he speaks.
#[derive(Debug)]
pub struct OfClients(pub Arc<Bundle>);

/// For the side that dials.
#[derive(Debug)]
pub struct OfServers(pub Arc<Bundle>);

/// For who has only a token: the chain must show the authority whose hash it pins, and that one must have signed.
#[derive(Debug)]
pub struct Pinned {
    pub authority: SpkiHash,
}

impl ClientCertVerifier for OfClients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verifier = &self.0.trusted().of_clients;
        verifier.verify_client_cert(end_entity, &[], clamped(end_entity, now)?)
    }

    usual_signatures!();
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = &self.0.trusted().of_servers;
        let now = clamped(end_entity, now)?;
        verifier.verify_server_cert(end_entity, &[], name, ocsp_response, now)
    }

    usual_signatures!();
}

impl Pinned {
    /// The one of `shown` whose key has the pinned hash, as the only authority.
    fn bundle(&self, shown: &[CertificateDer<'_>]) -> Result<Bundle, Error> {
        let authority = shown
            .iter()
            .find(|der| Facts::of(der).is_ok_and(|facts| facts.spki == self.authority))
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        Bundle::new(vec![authority.clone().into_owned()]).map_err(|error| Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for Pinned {
    /// The dates count here: whoever joins needs a server that may let it in.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = &self.bundle(intermediates)?.trusted().of_servers;
        verifier.verify_server_cert(end_entity, &[], name, ocsp_response, now)
    }

    usual_signatures!();
}

/// The name that every node's certificate has.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a constant that is a DNS name")
}

fn clamped(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<UnixTime, Error> {
    let facts =
        Facts::of(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let secs = facts.clamped(now.as_secs());
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(secs)))
}
