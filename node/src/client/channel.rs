//! How a request travels: over a plain connection or TLS.

use super::pinned::Pinned;
use anyhow::{Context, bail};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub enum Channel {
    Plain,
    Tls {
        connector: TlsConnector,
        /// The name that the server's certificate has to carry.
        name: ServerName<'static>,
    },
}

/// Whose certificates are believed.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// The authorities that browsers know.
    Public,
    /// Those in this PEM file, and a server whose own certificate is in it.
    File(&'a Path),
}

impl Channel {
    pub fn tls(host: &str, trust: Trust<'_>) -> anyhow::Result<Channel> {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = match trust {
            Trust::Public => config.with_root_certificates(RootCertStore::from_iter(
                webpki_roots::TLS_SERVER_ROOTS.iter().cloned(),
            )),
            Trust::File(path) => {
                let certificates = certificates(path).with_context(|| path.display().to_string())?;
                let verifier = Arc::new(Pinned::new(certificates)?);
                config.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let config = config.with_no_client_auth();
        Ok(Channel::Tls {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(name)?,
        })
    }

    /// The head of the answer; its body follows.
    pub async fn exchange(
        &self,
        socket: TcpStream,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Incoming>> {
        match self {
            Channel::Plain => exchange(socket, request).await.map_err(|error| {
                match error.downcast_ref().is_some_and(hyper::Error::is_parse) {
                    true => error.context(
                        "this is no answer in HTTP; a server of HTTPS needs a URL that begins with https://",
                    ),
                    false => error,
                }
            }),
            Channel::Tls { connector, name } => {
                let secured = connector.connect(name.clone(), socket).await;
                let secured = secured.map_err(|error| {
                    let advice = advice(&error);
                    anyhow::Error::new(error).context(advice)
                });
                exchange(secured?, request).await
            }
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => {
            "this is no answer in TLS; a server of plain HTTP needs a URL that begins with http://"
        }
        _ => "TLS (a server that no public authority knows needs --ca FILE)",
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        bail!("there is no certificate in it (`-----BEGIN CERTIFICATE-----`)");
    }
    Ok(certificates)
}
