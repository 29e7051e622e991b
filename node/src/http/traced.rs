//! The span of a request, which lasts until the last byte of its answer is on its way.

use super::held_body::HeldBody;
use crate::telemetry::spans::{self, Attribute, Kind, Outcome, Span};
use crate::telemetry::trace::Trace;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use proto::RequestId;
use std::time::SystemTime;

/// Ends, and is told, when it is dropped: also when the client goes away.
pub struct RequestSpan {
    trace: Trace,
    name: String,
    began: SystemTime,
    attributes: Vec<(&'static str, Attribute)>,
    outcome: Outcome,
}

impl RequestSpan {
    /// `None`: nobody wants to know of it.
    pub fn begin(request: &Request, route: &str, id: RequestId) -> Option<RequestSpan> {
        // Probes come every second and would drown the rest.
        if matches!(route, "/health" | "/ready" | "/metrics") {
            return None;
        }
        let traceparent = request.headers().get("traceparent");
        let trace = Trace::begin(traceparent.and_then(|value| value.to_str().ok()))?;
        let method = request.method();
        let text = |text: &str| Attribute::Text(text.to_owned());
        Some(RequestSpan {
            trace,
            name: format!("{method} {route}"),
            began: SystemTime::now(),
            attributes: vec![
                ("http.request.method", text(method.as_str())),
                ("http.route", text(route)),
                ("cluster.request_id", Attribute::Text(id.to_string())),
            ],
            outcome: Outcome::Unset,
        })
    }

    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// The answer carries the span to its end.
    pub fn follow(mut self, response: Response) -> Response {
        let status = response.status();
        let number = Attribute::Number(u64::from(status.as_u16()));
        self.attributes.push(("http.response.status_code", number));
        self.outcome = outcome(status);
        response.map(|body| HeldBody::wrap(body, self))
    }
}

/// A refusal is the client's error, not the server's.
fn outcome(status: StatusCode) -> Outcome {
    if status.is_server_error() {
        Outcome::Error
    } else {
        Outcome::Unset
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        spans::emit(Span {
            trace_id: self.trace.trace_id,
            span_id: self.trace.root,
            parent: self.trace.caller,
            name: std::mem::take(&mut self.name),
            kind: Kind::Server,
            began: self.began,
            ended: SystemTime::now(),
            attributes: std::mem::take(&mut self.attributes),
            outcome: self.outcome,
        });
    }
}
