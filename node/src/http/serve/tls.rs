//! HTTPS: the certificate and its key, read and checked before anything is served.

use crate::path::in_full;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What carries HTTP.
#[derive(Clone)]
pub enum Transport {
    Plain,
    Tls(TlsAcceptor),
}

/// How a client begins where HTTPS is served.
pub enum Greeting {
    Tls(Box<TlsStream<TcpStream>>),
    /// Without TLS. Nothing of it is read yet.
    PlainHttp(TcpStream),
}

/// The first byte tells: that of a handshake is no letter, and every method of HTTP begins with one.
pub async fn greet(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<Greeting> {
    let mut first = [0];
    let read = stream.peek(&mut first).await?;
    match read == 1 && first[0].is_ascii_alphabetic() {
        true => Ok(Greeting::PlainHttp(stream)),
        false => Ok(Greeting::Tls(Box::new(acceptor.accept(stream).await?))),
    }
}

/// Each names the file, what is wrong with it, and what belongs there.
#[derive(thiserror::Error, Debug)]
pub enum TlsError {
    #[error("{flag} {path}: {reason}")]
    File {
        flag: &'static str,
        path: PathBuf,
        reason: String,
    },
    #[error("--tls-cert {certificate} and --tls-key {key} cannot be used together: {reason}")]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        reason: String,
    },
}

impl Transport {
    /// How the address of the node begins.
    pub fn scheme(&self) -> &'static str {
        match self {
            Transport::Plain => "http",
            Transport::Tls(_) => "https",
        }
    }

    /// From PEM files: a chain of certificates, the server's own first, and its private key.
    pub fn tls(certificate: &Path, key: &Path) -> Result<Transport, TlsError> {
        let chain = chain(certificate)?;
        let private = private_key(key)?;
        let pair = |error: rustls::Error| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            reason: error.to_string(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(pair)?;
        // HTTP/2 has no timeout for a head that never ends, and clients of the API gain nothing by it.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Transport::Tls(TlsAcceptor::from(Arc::new(config))))
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |reason| TlsError::File {
        flag: "--tls-cert",
        path: in_full(path),
        reason,
    };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let chain: Vec<_> = read.map_err(|error| bad(said(&error)))?;
    match chain.is_empty() {
        true => Err(bad(
            "there is no certificate in it (`-----BEGIN CERTIFICATE-----`)".to_owned(),
        )),
        false => Ok(chain),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        flag: "--tls-key",
        path: in_full(path),
        reason: match error {
            pem::Error::NoItemsFound => {
                "there is no private key in it (`-----BEGIN PRIVATE KEY-----`)".to_owned()
            }
            other => said(&other),
        },
    })
}

fn said(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        other => format!("it is no PEM file: {other}"),
    }
}
