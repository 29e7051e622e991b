//! `GET /v1/models`.

use super::Service;
use super::error::ApiError;
use crate::gateway::ServedModel;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};

pub async fn list(State(service): State<Service>) -> Json<Value> {
    let models: Vec<Value> = service
        .gateway
        .models()
        .iter()
        .map(|model| described(model))
        .collect();
    Json(json!({"object": "list", "data": models}))
}

pub async fn one(
    State(service): State<Service>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|rejection| ApiError::invalid("model", rejection.body_text()))?;
    let models = service.gateway.models();
    let found = models.iter().find(|model| model.name == name);
    found
        .map(|model| Json(described(model)))
        .ok_or_else(|| ApiError::no_such_model(&name))
}

fn described(model: &ServedModel) -> Value {
    json!({
        "id": model.name,
        "object": "model",
        "created": model.added_at_secs,
        "owned_by": "cluster",
        "root": model.name,
        "parent": null,
        "max_model_len": model.context_tokens_max,
    })
}
