//! Where a server listens, and how to ask it something.

use super::channel::{Channel, Trust};
use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;

const ANSWER_BYTES_MAX: usize = 16 << 20;
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A server and the key for it. Each request takes a connection of its own.
pub struct Endpoint {
    authority: String,
    address: String,
    channel: Channel,
    /// What stands before `/v1`; mostly nothing.
    base: String,
    key: Option<String>,
}

impl Endpoint {
    /// `url` with or without `/v1` at its end; `trust` counts where it begins with `https`.
    pub fn parse(url: &str, key: Option<String>, trust: Trust<'_>) -> anyhow::Result<Endpoint> {
        let uri: Uri = url.parse()?;
        let authority = uri.authority().ok_or_else(|| anyhow!("{url:?} names no host"))?;
        let (channel, port) = match uri.scheme_str() {
            Some("http") => (Channel::Plain, 80),
            Some("https") => (Channel::tls(authority.host(), trust)?, 443),
            Some(_) | None => bail!("{url:?} begins neither with http:// nor with https://"),
        };
        let base = uri.path().trim_end_matches('/').trim_end_matches("/v1");
        Ok(Endpoint {
            authority: authority.to_string(),
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port)),
            channel,
            base: base.to_owned(),
            key,
        })
    }

    /// `path` begins with `/v1`.
    ///
    /// # Errors
    /// When the server cannot be reached or says no; then in its own words.
    pub async fn post(&self, path: &str, body: String) -> anyhow::Result<Response<Incoming>> {
        let request = self
            .request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        self.send(request).await
    }

    /// As [`Endpoint::post`], without a body; the answer is read whole.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.request(Method::GET, path).body(Full::default())?;
        let response = self.send(request).await?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| anyhow!("{path}: {error}"))?;
        serde_json::from_slice(&body.to_bytes()).with_context(|| format!("{path}: an answer that is no JSON"))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        let socket = TcpStream::connect(&self.address)
            .await
            .with_context(|| format!("connect to {}", self.address))?;
        socket.set_nodelay(true)?;
        let response = self
            .channel
            .exchange(socket, request)
            .await
            .with_context(|| self.address.clone())?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status @ StatusCode::UNAUTHORIZED => bail!(
                "{status}: {}; give a key with --key or CLUSTER_KEY",
                error_text(response).await
            ),
            status => bail!("{status}: {}", error_text(response).await),
        }
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::HOST, &self.authority);
        match &self.key {
            Some(key) => request.header(header::AUTHORIZATION, format!("Bearer {key}")),
            None => request,
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    message: String,
}

async fn error_text(response: Response<Incoming>) -> String {
    let body = Limited::new(response.into_body(), ERROR_BYTES_MAX)
        .collect()
        .await;
    let Ok(body) = body else {
        return String::new();
    };
    let bytes = body.to_bytes();
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => body.error.message,
        Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Transport;
    use std::path::PathBuf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn parse(url: &str) -> anyhow::Result<Endpoint> {
        Endpoint::parse(url, None, Trust::Public)
    }

    #[test]
    fn urls_may_end_in_v1_and_must_be_http() {
        let endpoint = parse("http://localhost:8080/v1/").unwrap();
        assert_eq!(
            (endpoint.address.as_str(), endpoint.base.as_str()),
            ("localhost:8080", "")
        );
        let behind = parse("http://host/llm/v1").unwrap();
        assert_eq!(
            (behind.address.as_str(), behind.base.as_str()),
            ("host:80", "/llm")
        );
        assert_eq!(parse("https://host").unwrap().address, "host:443");
        assert!(parse("ftp://host").is_err());
        assert!(parse("localhost:8080").is_err());
    }

    /// A self-signed certificate for localhost and its key, as files.
    fn certificate(name: &str, is_ca: rcgen::IsCa) -> (PathBuf, PathBuf) {
        let mut wanted = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        wanted.is_ca = is_ca;
        let key = rcgen::KeyPair::generate().unwrap();
        let folder = std::env::temp_dir();
        let path = |what: &str| {
            folder.join(format!(
                "cluster-endpoint-{}-{name}-{what}.pem",
                std::process::id()
            ))
        };
        std::fs::write(path("certificate"), wanted.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("certificate"), path("key"))
    }

    #[tokio::test]
    async fn https_is_spoken_with_a_server_that_is_trusted_and_with_no_other() {
        let any_length = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        speak_https(certificate("plain", rcgen::IsCa::NoCa)).await;
        // As `openssl req -x509` makes them.
        speak_https(certificate("authority", any_length)).await;
    }

    #[tokio::test]
    async fn a_server_of_https_that_is_asked_in_plain_text_leads_to_https() {
        let any_length = rcgen::IsCa::NoCa;
        let (certificate, key) = certificate("asked-plainly", any_length);
        let Transport::Tls(acceptor) = Transport::tls(&certificate, &key).unwrap() else {
            panic!("a certificate makes it TLS")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(socket).await.is_err());
        });
        let refused = parse(&url).unwrap().get("/v1/models").await.unwrap_err();
        assert!(format!("{refused:#}").contains("https://"), "{refused:#}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_of_plain_http_that_is_asked_in_tls_leads_to_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await;
            socket
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        });
        let refused = parse(&url).unwrap().get("/v1/models").await.unwrap_err();
        assert!(format!("{refused:#}").contains("http://"), "{refused:#}");
        assert!(!format!("{refused:#}").contains("--ca"), "{refused:#}");
        server.await.unwrap();
    }

    async fn speak_https((certificate, key): (PathBuf, PathBuf)) {
        let Transport::Tls(acceptor) = Transport::tls(&certificate, &key).unwrap() else {
            panic!("a certificate makes it TLS")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(socket).await else {
                    continue;
                };
                let _ = stream.read(&mut [0; 1024]).await;
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1";
                stream.write_all(answer).await.unwrap();
                stream.write_all(b"}").await.unwrap();
            }
        });
        let trusting = Endpoint::parse(&url, None, Trust::File(&certificate)).unwrap();
        assert_eq!(trusting.get("/v1/models").await.unwrap()["a"], 1);
        let (other, _) = self::certificate("other", rcgen::IsCa::NoCa);
        let mistaken = Endpoint::parse(&url, None, Trust::File(&other)).unwrap();
        assert!(
            mistaken.get("/v1/models").await.is_err(),
            "the same name, another key"
        );
        let careful = parse(&url).unwrap().get("/v1/models").await.unwrap_err();
        assert!(format!("{careful:#}").contains("certificate"), "{careful:#}");
        server.abort();
    }
}
