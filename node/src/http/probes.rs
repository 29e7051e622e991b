//! What load balancers and monitoring ask, and what is left: unknown routes and methods.

use super::Service;
use super::error::ApiError;
use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use proto::Span;
use serde_json::{Value, json};

/// 200 when this node can serve, else 503 with the reason.
pub async fn health(State(service): State<Service>) -> Result<Json<Value>, ApiError> {
    match service.gateway.health() {
        Ok(()) => Ok(Json(json!({"status": "ok"}))),
        Err(reason) => Err(ApiError::unavailable(reason, Span::from_secs(1))),
    }
}

pub async fn metrics(State(service): State<Service>) -> Response {
    let page = service.gateway.metrics();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        page,
    )
        .into_response()
}

pub async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

pub async fn no_such_route(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("there is no {} here", uri.path()),
    )
}

pub async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
