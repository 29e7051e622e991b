//! `Idempotency-Key`: a retry gets the answer of the first try.
//!
//! Of one tenant, the first request with a key runs. While it runs, another with the same key is told to come again (409
//! with `Retry-After`, which OpenAI's clients obey). Once it has been answered, whole or streamed to its end, every
//! repetition gets the very same bytes, for an hour at most and as long as there is room. The key with another path or
//! body is refused with 422. A refusal, an error inside a stream, a client that went away and an answer above the bound
//! leave nothing behind: the next request with the key runs. The record is this node's own and is lost with its process.

//!
//! With `Last-Event-ID` the answer is the rest of a stream that broke off: of the answer that is kept, or of one that is made
//! again, here or on another node. The same tokens come, because a request with a key and without a seed takes one that
//! follows from tenant and key.

mod event_id;
mod ledger;
mod recorder;
mod rest;

use super::Service;
use super::admission::Job;
use super::body;
use super::common::Delivery;
use super::edge::Caller;
use super::error::ApiError;
use super::stream::Resumable;
use crate::clock::Clock;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use event_id::EventId;
use ledger::{Bounds, Digest, Ledger, Name, Room, Verdict};
use proto::{Span, TenantId};
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
    resumable: Option<Resumable>,
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
    let seen = event_id::last_event(request.headers())?;
    let Some(key) = key(request.headers())? else {
        return match seen {
            Some(_) => Err(event_id::needs_key()),
            None => Ok(next.run(request).await),
        };
    };
    let (mut head, body) = request.into_parts();
    let caller = head.extensions.get_mut::<Caller>();
    let caller = caller.expect("the edge names every caller");
    let tenant = caller.tenant;
    caller.seed = Some(seed(tenant, &key));
    caller.resumed = seen.map(|seen| seen.request);
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
            Ok(unseen(recorded(claim, response), seen))
        }
        Verdict::Answered(answer) => match (seen, answer.resumable) {
            (Some(_), None) => Err(event_id::one_stream_only()),
            (Some(seen), Some(kept)) if seen.request != kept.request => Err(event_id::of_other_stream()),
            (Some(_), Some(_)) | (None, _) => Ok(unseen(answer.again(), seen)),
        },
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
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if keys.any(|other| other != key) {
        return Err(ApiError::invalid(
            "Idempotency-Key",
            "two different `Idempotency-Key` headers came with this request; send one".to_string(),
        ));
    }
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

/// A fixed function: what the dice of a request are must not depend on the node that takes it, or on its version.
fn seed(tenant: TenantId, key: &str) -> u64 {
    let mut hasher = sha2::Sha256::new();
    hasher.update(b"seed of an Idempotency-Key\0");
    hasher.update(tenant.0.to_le_bytes());
    hasher.update(key);
    let digest: Digest = hasher.finalize().into();
    let (first, _) = digest
        .split_first_chunk()
        .expect("a digest is longer than a seed");
    u64::from_le_bytes(*first)
}

/// Whether an answer can be told from a place in it on.
pub fn check_resumable(job: &Job) -> Result<(), ApiError> {
    match (job.common.delivery, job.prompts.len(), job.common.choices) {
        (Delivery::Stream(_), 1, 1) => Ok(()),
        (Delivery::Stream(_) | Delivery::Whole, _, _) => Err(event_id::one_stream_only()),
    }
}

/// Of an answer what the client has not seen; of a refusal all.
fn unseen(response: Response, seen: Option<EventId>) -> Response {
    match seen {
        Some(seen) if response.status() == StatusCode::OK => {
            response.map(|body| rest::behind(body, seen.position))
        }
        Some(_) | None => response,
    }
}

/// Only an answer is kept; a refusal may be another one next time.
fn recorded(claim: Claim, response: Response) -> Response {
    if response.status() != StatusCode::OK {
        return response;
    }
    let (head, body) = response.into_parts();
    let resumable = head.extensions.get::<Resumable>().copied();
    let recorder = Recorder::new(claim, head.headers.clone(), resumable, body);
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
