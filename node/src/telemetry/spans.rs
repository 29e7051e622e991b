//! Spans that have ended, on their way to a collector. Requests never wait for it: what finds no room is dropped and
//! counted.

use super::trace::{Trace, fresh_span_id};
use metrics::counter;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

pub const DROPPED: &str = "cluster_spans_dropped_total";

const WAITING_MAX: usize = 4096;

static SINK: OnceLock<mpsc::Sender<Message>> = OnceLock::new();

pub enum Message {
    Span(Span),
    /// Answered when everything before it has been sent.
    Flush(oneshot::Sender<()>),
}

/// Something that took time. Attributes hold names and counts, never a prompt.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    pub trace_id: u128,
    pub span_id: u64,
    pub parent: Option<u64>,
    pub name: String,
    pub kind: Kind,
    pub began: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<(&'static str, Attribute)>,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Internal,
    Server,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Unset,
    Error,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Attribute {
    Text(String),
    Number(u64),
}

/// Once in a process; from now on spans are collected.
pub fn open() -> anyhow::Result<mpsc::Receiver<Message>> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    SINK.set(sender)
        .map_err(|_| anyhow::anyhow!("spans are collected already"))?;
    Ok(receiver)
}

pub fn are_collected() -> bool {
    SINK.get().is_some()
}

pub fn emit(span: Span) {
    let Some(sink) = SINK.get() else {
        return;
    };
    if sink.try_send(Message::Span(span)).is_err() {
        counter!(DROPPED).increment(1);
    }
}

/// Waits until all spans so far have been sent, or cannot be.
pub async fn flush() {
    let Some(sink) = SINK.get() else {
        return;
    };
    let (sender, flushed) = oneshot::channel();
    if sink.send(Message::Flush(sender)).await.is_ok() {
        let _ = flushed.await;
    }
}

impl Trace {
    /// A part of the request.
    pub fn part(
        &self,
        name: &str,
        began: SystemTime,
        ended: SystemTime,
        attributes: Vec<(&'static str, Attribute)>,
    ) -> Span {
        Span {
            trace_id: self.trace_id,
            span_id: fresh_span_id(),
            parent: Some(self.root),
            name: name.to_owned(),
            kind: Kind::Internal,
            began,
            ended,
            attributes,
            outcome: Outcome::Unset,
        }
    }
}

pub fn unix_nanos(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}
