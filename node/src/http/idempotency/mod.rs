//! `Idempotency-Key`: a retry gets the answer of the first try.
//!
//! Of one tenant, the first request with a key runs. While it runs, another with the same key is told to come again (409
//! with `Retry-After`, which OpenAI's clients obey). Once it has been answered, whole or streamed to its end, every
//! repetition gets the very same bytes, for an hour at most and as long as there is room. The key with another path or
//! body is refused with 422. A refusal, an error inside a stream, a client that went away and an answer above the bound
//! leave nothing behind: the next request with the key runs. The record is this node's own and is lost with its process.

mod ledger;
mod recorder;

use super::Service;
use super::body;
use super::edge::Caller;
use super::error::ApiError;
use crate::clock::Clock;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ledger::{Bounds, Digest, Ledger, Name, Room, Verdict};
use proto::Span;
use recorder::Recorder;
use sha2::Digest as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Tells a repeated answer from a first one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const KEY_BYTES_MAX: usize = 255;
const BOUNDS: Bounds = Bounds {
    bytes_max: 64 << 20,
    answer_bytes_max: 4 << 20,
    kept_for: Span::from_secs(3600),
};

/// The answers of requests that had a key.
#[derive(Clone)]
pub struct Answers {
    ledger: Arc<Mutex<Ledger<KeptAnswer>>>,
    clock: Clock,
}

pub struct KeptAnswer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answers {
    pub fn new() -> Answers {
        Answers {
            ledger: Arc::new(Mutex::new(Ledger::new(BOUNDS))),
            clock: Clock::start(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<KeptAnswer>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request with a key that is running. Dropped without `finish` it leaves nothing behind.
struct Claim {
    answers: Answers,
    name: Name,
    is_finished: bool,
}

impl Claim {
    fn grow(&self, bytes: usize) -> Room {
        self.answers.ledger().grow(&self.name, bytes)
    }

    fn finish(mut self, answer: KeptAnswer) {
        self.is_finished = true;
        let now = self.answers.clock.now();
        self.answers.ledger().finish(&self.name, answer, now);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_finished {
            self.answers.ledger().abandon(&self.name);
        }
    }
}

/// The layer around the routes whose requests cost something.
pub async fn pass(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(key) = key(request.headers())? else {
        return Ok(next.run(request).await);
    };
    let caller = request.extensions().get::<Caller>();
    let tenant = caller.expect("the edge names every caller").tenant;
    let (head, body) = request.into_parts();
    let bytes = body::read(
        &head.headers,
        body,
        service.limits.body_bytes_max,
        &service.limits,
    )
    .await?;
    let name = Name { tenant, key };
    let verdict = {
        let answers = &service.answers;
        answers
            .ledger()
            .begin(&name, digest(head.uri.path(), &bytes), answers.clock.now())
    };
    match verdict {
        Verdict::Run => {
            let claim = Claim {
                answers: service.answers.clone(),
                name,
                is_finished: false,
            };
            let response = next.run(Request::from_parts(head, Body::from(bytes))).await;
            Ok(recorded(claim, response))
        }
        Verdict::Answered(answer) => Ok(answer.again()),
        Verdict::Running => Err(ApiError::running()),
        Verdict::OtherRequest => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "this Idempotency-Key came with another request before; use a new key for each request",
        )),
        Verdict::Full => Err(ApiError::unavailable(
            "too many requests with an Idempotency-Key are running; try again later",
            Span::from_secs(1),
        )),
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get(KEY) else {
        return Ok(None);
    };
    let is_fit = |key: &&str| (1..=KEY_BYTES_MAX).contains(&key.len());
    match key.to_str().ok().filter(is_fit) {
        Some(key) => Ok(Some(key.to_string())),
        None => Err(ApiError::invalid(
            "Idempotency-Key",
            format!("`Idempotency-Key` must have 1 to {KEY_BYTES_MAX} visible ASCII characters"),
        )),
    }
}

fn digest(path: &str, body: &[u8]) -> Digest {
    let mut hasher = sha2::Sha256::new();
    // A path has no zero byte, so path and body cannot be cut in two ways.
    hasher.update(path.as_bytes());
    hasher.update([0]);
    hasher.update(body);
    hasher.finalize().into()
}

/// Only an answer is kept; a refusal may be another one next time.
fn recorded(claim: Claim, response: Response) -> Response {
    if response.status() != StatusCode::OK {
        return response;
    }
    let (head, body) = response.into_parts();
    let recorder = Recorder::new(claim, head.headers.clone(), body);
    Response::from_parts(head, Body::new(recorder))
}

impl KeptAnswer {
    fn again(&self) -> Response {
        let mut response = self.body.clone().into_response();
        *response.headers_mut() = self.headers.clone();
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}
