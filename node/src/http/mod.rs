//! The HTTP interface, in the forms that OpenAI's clients speak: the only place that knows JSON.
//!
//! A request passes `edge` (name, key, span, counters), perhaps `idempotency` (a retry gets the first answer), is parsed as one of the types in `request`, is checked by `chat` or
//! `completions` (with `sampling`, `common`), becomes a `Generate` in `admission`, and comes back through a `session`, whose fragments are put into
//! JSON whole (`answer`) or chunk by chunk (`stream`).

mod admission;
mod answer;
mod body;
mod call_id;
mod chat;
mod choice;
mod common;
mod completions;
mod dialect;
mod edge;
mod encode;
mod error;
mod extras;
mod form;
mod free_json;
#[cfg(fuzzing)]
pub mod fuzzing;
mod held_body;
mod idempotency;
mod last_turn;
mod limits;
mod logprobs;
mod message;
mod models;
mod openapi;
mod probes;
mod reasoned_form;
mod request;
mod sampling;
mod serve;
mod session;
mod stream;
pub mod telemetry;
#[cfg(test)]
mod tests;
mod text_work;
mod timing;
mod tokenize;
mod tools;
mod traced;
mod unserved;
mod usage;

pub use limits::{Limits, MetricsAccess};
pub use serve::{SeatsMax, Transport, describe as describe_connections, serve};

use crate::gateway::Gateway;
use axum::Router;
use axum::routing::{get, post};
use std::sync::Arc;
use text_work::TextWork;

/// What every handler needs.
#[derive(Clone)]
struct Service {
    gateway: Arc<dyn Gateway>,
    limits: Arc<Limits>,
    text_work: TextWork,
    answers: idempotency::Answers,
}

/// All routes. Every answer has an `x-request-id`, and every error the body `{"error": {…}}`.
pub fn router(gateway: Arc<dyn Gateway>, limits: Limits) -> Router {
    let service = Service {
        gateway,
        text_work: TextWork::new(&limits),
        limits: Arc::new(limits),
        answers: idempotency::Answers::new(),
    };
    let repeatable = || axum::middleware::from_fn_with_state(service.clone(), idempotency::pass);
    Router::new()
        .route("/v1/chat/completions", post(chat::create).layer(repeatable()))
        .route("/v1/completions", post(completions::create).layer(repeatable()))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/tokenizer_info", get(tokenize::info))
        .route("/health", get(probes::health))
        .route("/ready", get(probes::health))
        .route("/metrics", get(probes::metrics))
        .route("/version", get(probes::version))
        .route("/openapi.json", get(openapi::document))
        .fallback(probes::no_such_route)
        .method_not_allowed_fallback(probes::wrong_method)
        .layer(axum::middleware::from_fn_with_state(service.clone(), edge::pass))
        .with_state(service)
}
