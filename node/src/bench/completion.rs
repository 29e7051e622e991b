//! One streamed completion over HTTP/1.1, with the times at which its parts arrived.

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A line of a server-sent event longer than this is no answer to a completion.
const LINE_BYTES_MAX: usize = 1 << 20;
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A server and the key for it.
pub struct Target {
    authority: String,
    address: String,
    path: String,
    key: Option<String>,
}

/// A completion that ran to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// From sending the request to the first token.
    pub first_token: Duration,
    /// From sending the request to the last token.
    pub last_token: Duration,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
}

impl Outcome {
    /// Time for each token after the first; `None` when there was only one.
    pub fn per_token(&self) -> Option<Duration> {
        let further = u32::try_from(self.output_tokens.checked_sub(1)?).ok()?;
        (self.last_token - self.first_token).checked_div(further)
    }
}

impl Target {
    /// `url` with or without `/v1` at its end.
    pub fn parse(url: &str, key: Option<String>) -> anyhow::Result<Target> {
        let uri: Uri = url.parse()?;
        if uri.scheme_str() != Some("http") {
            bail!("{url:?}: only http:// is spoken here");
        }
        let authority = uri.authority().ok_or_else(|| anyhow!("{url:?} names no host"))?;
        let base = uri.path().trim_end_matches('/').trim_end_matches("/v1");
        Ok(Target {
            authority: authority.to_string(),
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            path: format!("{base}/v1/completions"),
            key,
        })
    }

    /// Sends `body`, a completion request with `stream` and `include_usage`, and reads the answer to its end.
    ///
    /// # Errors
    /// When the server cannot be reached, answers with an error, or ends the stream without usage.
    pub async fn complete(&self, body: String) -> anyhow::Result<Outcome> {
        let sent = Instant::now();
        let response = self.send(body).await?;
        if response.status() != StatusCode::OK {
            bail!("{}", error_text(response).await);
        }
        let mut record = Record::default();
        read_stream(response.into_body(), &mut record).await?;
        record.outcome(sent)
    }

    async fn send(&self, body: String) -> anyhow::Result<Response<Incoming>> {
        let socket = TcpStream::connect(&self.address)
            .await
            .with_context(|| format!("connect to {}", self.address))?;
        socket.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(self.request(body)?).await?)
    }

    fn request(&self, body: String) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        Ok(request.body(Full::from(body))?)
    }
}

async fn error_text(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = Limited::new(response.into_body(), ERROR_BYTES_MAX)
        .collect()
        .await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
    format!("{status}: {}", text.unwrap_or_default())
}

async fn read_stream(mut body: Incoming, record: &mut Record) -> anyhow::Result<()> {
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let now = Instant::now();
        if let Ok(data) = frame?.into_data() {
            pending.extend_from_slice(&data);
        }
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            record.line(now, &line)?;
        }
        if pending.len() > LINE_BYTES_MAX {
            bail!("an event of more than {LINE_BYTES_MAX} bytes");
        }
    }
    Ok(())
}

/// What a stream has brought so far.
#[derive(Default)]
struct Record {
    first: Option<Instant>,
    last: Option<Instant>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<serde::de::IgnoredAny>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize, Clone, Copy)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Record {
    fn line(&mut self, now: Instant, line: &[u8]) -> anyhow::Result<()> {
        let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else {
            return Ok(());
        };
        if data == b"[DONE]" {
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data).context("an event that is no completion")?;
        if let Some(error) = chunk.error {
            bail!("{error}");
        }
        if !chunk.choices.is_empty() {
            self.first.get_or_insert(now);
            self.last = Some(now);
        }
        self.usage = chunk.usage.or(self.usage);
        Ok(())
    }

    fn outcome(self, sent: Instant) -> anyhow::Result<Outcome> {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            bail!("a stream without a token")
        };
        let usage = self
            .usage
            .context("a stream without usage: it was cut, or the server sends none")?;
        Ok(Outcome {
            first_token: first - sent,
            last_token: last - sent,
            prompt_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_timed_from_its_first_to_its_last_choice() {
        let sent = Instant::now();
        let at = |millis| sent + Duration::from_millis(millis);
        let mut record = Record::default();
        record
            .line(at(30), b"data: {\"choices\":[{\"text\":\"a\"}]}\n")
            .unwrap();
        record.line(at(40), b"\n").unwrap();
        record.line(at(50), b": a comment\n").unwrap();
        record
            .line(
                at(70),
                b"data: {\"choices\":[{\"text\":\"b\"}],\"usage\":null}\r\n",
            )
            .unwrap();
        record
            .line(
                at(90),
                b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n",
            )
            .unwrap();
        record.line(at(99), b"data: [DONE]\n").unwrap();
        let outcome = record.outcome(sent).unwrap();
        assert_eq!(outcome.first_token, Duration::from_millis(30));
        assert_eq!(outcome.per_token(), Some(Duration::from_millis(20)));
        assert_eq!((outcome.prompt_tokens, outcome.output_tokens), (7, 3));
    }

    #[test]
    fn an_error_inside_a_stream_and_a_cut_stream_are_failures() {
        let now = Instant::now();
        let mut record = Record::default();
        assert!(
            record
                .line(now, b"data: {\"error\":{\"message\":\"no\"}}\n")
                .is_err()
        );
        record
            .line(now, b"data: {\"choices\":[{\"text\":\"a\"}]}\n")
            .unwrap();
        assert!(record.outcome(now).is_err());
    }

    #[test]
    fn urls_may_end_in_v1_and_must_be_http() {
        let target = Target::parse("http://localhost:8080/v1/", None).unwrap();
        assert_eq!(
            (target.address.as_str(), target.path.as_str()),
            ("localhost:8080", "/v1/completions")
        );
        assert_eq!(Target::parse("http://host", None).unwrap().address, "host:80");
        assert!(Target::parse("https://host", None).is_err());
        assert!(Target::parse("localhost:8080", None).is_err());
    }
}
