//! What every request passes first and every answer last: its name, its key, its span, its counters.

use super::Service;
use super::error::ApiError;
use super::limits::MetricsAccess;
use super::telemetry;
use super::traced::RequestSpan;
use crate::telemetry::trace;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use proto::{RequestId, TenantId};
use std::time::Instant;
use tracing::Instrument;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TIMING: HeaderName = HeaderName::from_static("x-cluster-timing");
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Who asks, and under which name the answer is known.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub request: RequestId,
    /// The request whose stream the answer goes on with, by whose name clients know it. Never the name by which it runs: it
    /// comes from outside, and that other one may be running still.
    pub resumed: Option<RequestId>,
    pub tenant: TenantId,
    pub arrived: Instant,
    pub timing: ShowTiming,
    /// Of a request that has a key and no seed of its own: the same on every node, for the same answer.
    pub seed: Option<u64>,
}

impl Caller {
    /// The name in the answer.
    pub fn told_request(&self) -> RequestId {
        self.resumed.unwrap_or(self.request)
    }
}

/// Whether the answer tells where its time went (`x-cluster-timing: 1`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShowTiming {
    Yes,
    No,
}

pub async fn pass(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId(drawn_id());
    let shown_id = client_id(request.headers()).unwrap_or_else(|| hex_id(id));
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", |path| path.as_str())
        .to_string();
    let span = tracing::info_span!("request", id = %id, client_id = shown_id.to_str().unwrap_or_default(), method = %request.method(), route);
    let request_span = RequestSpan::begin(&request, &route, id);
    let mut response = match authenticated(&service, &request) {
        Ok(tenant) => {
            let caller = Caller {
                request: id,
                resumed: None,
                tenant,
                arrived: started,
                timing: show_timing(request.headers()),
                seed: None,
            };
            request.extensions_mut().insert(caller);
            let trace = request_span.as_ref().map(RequestSpan::trace);
            let handling = next.run(request).instrument(span.clone());
            trace::within(trace, handling).await
        }
        Err(error) => error.into_response(),
    };
    span.in_scope(|| tell(&route, response.status(), started));
    telemetry::answered(route, response.status());
    response.headers_mut().insert(REQUEST_ID, shown_id);
    match request_span {
        Some(span) => span.follow(response),
        None => response,
    }
}

/// Of a stream this is the head alone; `RequestWatch` tells of its end.
fn tell(route: &str, status: StatusCode, started: Instant) {
    let status = status.as_u16();
    let millis = started.elapsed().as_millis() as u64;
    match route {
        // Probes come every second and would drown the rest.
        "/health" | "/ready" | "/metrics" => tracing::debug!(status, millis, "answered"),
        _other => tracing::info!(status, millis, "answered"),
    }
}

/// The open routes know no tenant and get the default one.
fn authenticated(service: &Service, request: &Request) -> Result<TenantId, ApiError> {
    if is_open(request.uri().path(), service.limits.metrics) {
        return Ok(TenantId::default());
    }
    let key = bearer(request.headers());
    service.gateway.authenticate(key).ok_or_else(ApiError::no_key)
}

fn is_open(path: &str, metrics: MetricsAccess) -> bool {
    match path {
        "/health" | "/ready" => true,
        "/metrics" => metrics == MetricsAccess::Everyone,
        _other => false,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

fn show_timing(headers: &HeaderMap) -> ShowTiming {
    match headers.get(TIMING).map(HeaderValue::as_bytes) {
        Some(b"1" | b"true") => ShowTiming::Yes,
        Some(_) | None => ShowTiming::No,
    }
}

/// For an answer without a request that could name it.
pub fn new_id() -> HeaderValue {
    hex_id(RequestId(drawn_id()))
}

fn drawn_id() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has no randomness");
    u128::from_le_bytes(bytes)
}

/// The client's own name for its request, where it is fit for a header and a log line.
fn client_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    let bytes = id.as_bytes();
    ((1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(is_fit)).then(|| id.clone())
}

fn hex_id(id: RequestId) -> HeaderValue {
    HeaderValue::try_from(id.to_string()).expect("hexadecimal digits are fit for a header")
}
