//! TCP with TLS 1.3, with the same certificates.

use crate::Way;
use crate::ends::Here;
use bytes::Bytes;
use node::trust::verify::{OfClients, OfServers, server_name};
use rustls::version::TLS13;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

pub struct Tcp {
    stream: client::TlsStream<TcpStream>,
    frame: Vec<u8>,
}

pub async fn listen(here: Here, address: SocketAddr) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("versions")
        .with_client_cert_verifier(Arc::new(OfClients(here.bundle)))
        .with_cert_resolver(here.identity);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.expect("a port");
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true).expect("an option of TCP");
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut frame = vec![0; 8];
            loop {
                frame.resize(8, 0);
                if stream.read_exact(&mut frame).await.is_err() {
                    return;
                }
                let length = u64::from_le_bytes(*frame.first_chunk().expect("8 bytes")) as usize;
                frame.resize(8 + length, 0);
                let read = stream.read_exact(&mut frame[8..]).await;
                if read.is_err() || stream.write_all(&frame).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

pub async fn connect(here: Here, address: SocketAddr) -> Tcp {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OfServers(here.bundle)))
        .with_client_cert_resolver(here.identity);
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option of TCP");
    let connector = TlsConnector::from(Arc::new(config));
    let connected = connector.connect(server_name(), stream).await;
    Tcp {
        stream: connected.expect("a handshake"),
        frame: Vec::new(),
    }
}

impl Way for Tcp {
    fn name(&self) -> &'static str {
        "TCP+TLS"
    }

    async fn round(&mut self, bytes: &Bytes, echo: &mut [u8]) {
        self.frame.clear();
        self.frame.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.frame.extend_from_slice(bytes);
        self.stream.write_all(&self.frame).await.expect("it is sent");
        self.stream.flush().await.expect("it is sent");
        let mut length = [0; 8];
        self.stream.read_exact(&mut length).await.expect("it comes back");
        self.stream.read_exact(echo).await.expect("it comes back");
    }
}
