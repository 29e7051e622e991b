//! The handshakes: TLS 1.3 alone, with certificates of the cluster's own authority.

use super::error::BindError;
use super::protocol::Protocol;
use crate::trust::verify::{OfClients, OfServers, Pinned};
use crate::trust::{Bundle, Identity, SpkiHash};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig, version};
use std::sync::Arc;

/// For the side that is dialled: all protocols.
pub(super) fn accepting(identity: Arc<Identity>, bundle: Arc<Bundle>) -> Result<QuicServerConfig, BindError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(Arc::new(OfClients(bundle)))
        .with_cert_resolver(identity);
    config.alpn_protocols = Protocol::ALL.map(|protocol| protocol.alpn().to_vec()).to_vec();
    // A resumed session would bring back what an earlier handshake had verified, by the authorities of then.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(tls_error)
}

/// For a member that dials another.
pub(super) fn dialling(
    identity: Arc<Identity>,
    bundle: Arc<Bundle>,
    protocol: Protocol,
) -> Result<QuicClientConfig, BindError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OfServers(bundle)))
        .with_client_cert_resolver(identity);
    finished(config, protocol)
}

/// For who has only a token that pins the authority.
pub(super) fn joining(authority: SpkiHash) -> Result<QuicClientConfig, BindError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(Pinned { authority });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    finished(config, Protocol::Join)
}

fn finished(mut config: ClientConfig, protocol: Protocol) -> Result<QuicClientConfig, BindError> {
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(tls_error)
}

fn tls_error(error: impl std::fmt::Display) -> BindError {
    BindError::Tls(error.to_string())
}
