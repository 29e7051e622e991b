//! QUIC with quinn's defaults, but for what keeps a connection while others are measured; with the same certificates.

use crate::Way;
use crate::ends::Here;
use bytes::Bytes;
use node::trust::SERVER_NAME;
use node::trust::verify::{OfClients, OfServers};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::version::TLS13;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The others' rounds take longer than an idle connection lives.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

pub struct Untuned {
    _endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

pub async fn listen(here: Here, address: SocketAddr) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("versions")
        .with_client_cert_verifier(Arc::new(OfClients(here.bundle)))
        .with_cert_resolver(here.identity);
    let crypto = QuicServerConfig::try_from(tls).expect("TLS 1.3");
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, address).expect("a port");
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            if let Ok((send, receive)) = connection.accept_bi().await {
                echo(send, receive).await;
            }
        });
    }
}

async fn echo(mut send: quinn::SendStream, mut receive: quinn::RecvStream) {
    let mut length = [0; 8];
    while receive.read_exact(&mut length).await.is_ok() {
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        if receive.read_exact(&mut bytes).await.is_err() {
            return;
        }
        let mut parts = [Bytes::copy_from_slice(&length), Bytes::from(bytes)];
        if send.write_all_chunks(&mut parts).await.is_err() {
            return;
        }
    }
}

pub async fn connect(here: Here, address: SocketAddr) -> Untuned {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OfServers(here.bundle)))
        .with_client_cert_resolver(here.identity);
    let crypto = QuicClientConfig::try_from(tls).expect("TLS 1.3");
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).expect("a port");
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE_INTERVAL));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    endpoint.set_default_client_config(config);
    let connecting = endpoint.connect(address, SERVER_NAME).expect("a name");
    let connection = connecting.await.expect("a connection");
    let (send, receive) = connection.open_bi().await.expect("a stream");
    Untuned {
        _endpoint: endpoint,
        connection,
        send,
        receive,
    }
}

impl Way for Untuned {
    fn name(&self) -> &'static str {
        "QUIC, defaults"
    }

    async fn round(&mut self, bytes: &Bytes, echo: &mut [u8]) {
        let length = (bytes.len() as u64).to_le_bytes();
        let mut parts = [Bytes::copy_from_slice(&length), bytes.clone()];
        self.send.write_all_chunks(&mut parts).await.expect("it is sent");
        let mut length = [0; 8];
        self.receive.read_exact(&mut length).await.expect("it comes back");
        self.receive.read_exact(echo).await.expect("it comes back");
    }

    fn remark(&self) -> String {
        format!("defaults: {:?}", self.connection.stats().path)
    }
}
