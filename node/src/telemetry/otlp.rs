//! Spans to a collector, by OTLP over HTTP with JSON bodies: the form of the protocol that needs no code generator.

use super::spans::{self, Attribute, Kind, Message, Outcome, Span};
use crate::client::channel::Trust;
use crate::client::endpoint::Endpoint;
use anyhow::Context;
use http_body_util::BodyExt;
use metrics::counter;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

const PATH: &str = "/v1/traces";
/// Spans of one message.
const SPANS_MAX: usize = 512;
/// So that spans which end close to each other travel together.
const GATHER: Duration = Duration::from_millis(200);
const SEND_MAX: Duration = Duration::from_secs(5);

/// Checks the URL (with or without `/v1/traces` at its end), and collects from now on. The future sends for as long as
/// the process lives.
pub fn start(url: &str) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let base = url.trim_end_matches('/').trim_end_matches(PATH);
    let endpoint = Endpoint::parse(base, None, Trust::Public).context("--otlp-endpoint")?;
    let exporter = Exporter {
        endpoint,
        is_down: false,
    };
    Ok(exporter.run(spans::open()?))
}

struct Exporter {
    endpoint: Endpoint,
    /// Told once, not with every message that is lost.
    is_down: bool,
}

impl Exporter {
    async fn run(mut self, mut waiting: mpsc::Receiver<Message>) {
        let mut messages = Vec::new();
        while waiting.recv_many(&mut messages, SPANS_MAX).await > 0 {
            if messages.len() < SPANS_MAX && !messages.iter().any(is_flush) {
                sleep(GATHER).await;
                while let Ok(message) = waiting.try_recv() {
                    messages.push(message);
                }
            }
            let (spans, flushes) = parted(messages.drain(..));
            for spans in spans.chunks(SPANS_MAX) {
                self.send(spans).await;
            }
            for flush in flushes {
                // Who asked may have given up.
                let _ = flush.send(());
            }
        }
    }

    /// What cannot be sent is lost: a node is no place to keep spans.
    async fn send(&mut self, spans: &[Span]) {
        let sent = timeout(SEND_MAX, self.post(spans))
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", SEND_MAX.as_secs())));
        match sent {
            Ok(()) if self.is_down => tracing::info!("spans reach their collector again"),
            Ok(()) => {}
            Err(error) => {
                counter!(spans::DROPPED).increment(spans.len() as u64);
                if !self.is_down {
                    tracing::warn!(%error, "spans do not reach their collector and are dropped");
                }
                self.is_down = true;
                return;
            }
        }
        self.is_down = false;
    }

    async fn post(&self, spans: &[Span]) -> anyhow::Result<()> {
        let response = self.endpoint.post(PATH, message(spans).to_string()).await?;
        response.into_body().collect().await?;
        Ok(())
    }
}

fn is_flush(message: &Message) -> bool {
    matches!(message, Message::Flush(_))
}

fn parted(messages: impl Iterator<Item = Message>) -> (Vec<Span>, Vec<oneshot::Sender<()>>) {
    let (mut spans, mut flushes) = (Vec::new(), Vec::new());
    for message in messages {
        match message {
            Message::Span(span) => spans.push(span),
            Message::Flush(flush) => flushes.push(flush),
        }
    }
    (spans, flushes)
}

/// An `ExportTraceServiceRequest` in protobuf's JSON form, where OTLP wants ids in hexadecimal and 64-bit numbers as
/// text.
fn message(spans: &[Span]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        ("service.name", Attribute::Text("cluster".to_owned())),
        ("service.version", Attribute::Text(version.to_owned())),
        ("process.pid", Attribute::Number(u64::from(std::process::id()))),
    ];
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&resource)},
        "scopeSpans": [{
            "scope": {"name": "cluster", "version": version},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
}

fn span(span: &Span) -> Value {
    let kind = match span.kind {
        Kind::Internal => 1,
        Kind::Server => 2,
    };
    let mut told = json!({
        "traceId": format!("{:032x}", span.trace_id),
        "spanId": format!("{:016x}", span.span_id),
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": spans::unix_nanos(span.began).to_string(),
        "endTimeUnixNano": spans::unix_nanos(span.ended).to_string(),
        "attributes": attributes(&span.attributes),
    });
    if let Some(parent) = span.parent {
        told["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    match span.outcome {
        Outcome::Unset => {}
        Outcome::Error => told["status"] = json!({"code": 2}),
    }
    told
}

fn attributes(attributes: &[(&'static str, Attribute)]) -> Vec<Value> {
    let told = attributes.iter().map(|(key, value)| {
        let value = match value {
            Attribute::Text(text) => json!({"stringValue": text}),
            Attribute::Number(number) => json!({"intValue": number.to_string()}),
        };
        json!({"key": key, "value": value})
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_span_is_told_as_the_protocol_wants_it() {
        let span = Span {
            trace_id: 0xab,
            span_id: 0xcd,
            parent: Some(1),
            name: "decode".to_owned(),
            kind: Kind::Server,
            began: UNIX_EPOCH + Duration::from_nanos(5),
            ended: UNIX_EPOCH + Duration::from_secs(1),
            attributes: vec![("tokens", Attribute::Number(7))],
            outcome: Outcome::Error,
        };
        let told = &message(&[span])["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        let expected = json!({
            "traceId": "000000000000000000000000000000ab",
            "spanId": "00000000000000cd",
            "name": "decode",
            "kind": 2,
            "startTimeUnixNano": "5",
            "endTimeUnixNano": "1000000000",
            "attributes": [{"key": "tokens", "value": {"intValue": "7"}}],
            "parentSpanId": "0000000000000001",
            "status": {"code": 2},
        });
        assert_eq!(*told, expected);
    }
}
