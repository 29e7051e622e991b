//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as vLLM has them.

use super::Service;
use super::body::read_fields;
use super::chat::{add_special, conversation};
use super::error::ApiError;
use super::fields::Fields;
use super::sampling::token_ids;
use crate::gateway::ServedModel;
use crate::text::{AddSpecial, SpecialTokens, decode};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;

/// Takes `prompt` or `messages`.
pub async fn tokenize(
    State(service): State<Service>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let fields = read_fields(&headers, body, &service.limits).await?;
    let model = service.model(&fields)?;
    let tokens = tokens(&service, &fields, model.clone()).await?;
    let mut answer = json!({
        "count": tokens.len(),
        "max_model_len": model.context_tokens_max,
        "tokens": tokens,
        "token_strs": null,
    });
    if fields.flag("return_token_strs")?.unwrap_or(false) {
        let vocabulary = model.text.vocabulary();
        answer["token_strs"] = tokens
            .iter()
            .map(|id| Value::String(vocabulary.text(*id)))
            .collect();
    }
    Ok(Json(answer))
}

async fn tokens(service: &Service, fields: &Fields, model: Arc<ServedModel>) -> Result<Vec<u32>, ApiError> {
    let Some(text) = fields.text("prompt")? else {
        let special = add_special(fields, AddSpecial::Never)?;
        return service.chat_tokens(model, conversation(fields)?, special).await;
    };
    let text = text.to_string();
    let special = add_special(fields, AddSpecial::AsModelWants)?;
    let encode = move || model.text.tokenizer().encode(&text, special);
    service
        .text_work
        .run(move || encode().map_err(|error| ApiError::too_long("prompt", error.to_string())))
        .await
}

pub async fn detokenize(
    State(service): State<Service>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let fields = read_fields(&headers, body, &service.limits).await?;
    let model = service.model(&fields)?;
    fields.required("tokens")?;
    let tokens = fields.list("tokens")?.map_or(&[][..], Vec::as_slice);
    let ids = token_ids("tokens", tokens, model.text.vocabulary())?;
    Ok(Json(
        json!({"prompt": decode(model.text.vocabulary(), &ids, SpecialTokens::Show)}),
    ))
}

/// Of the only model, or of the first.
pub async fn info(State(service): State<Service>) -> Result<Json<Value>, ApiError> {
    let models = service.gateway.models();
    let model = models.first().ok_or_else(|| ApiError::no_such_model(""))?;
    let named = model.text.tokenizer().named_tokens();
    Ok(Json(json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": named.bos,
        "eos_token": named.eos,
        "unk_token": named.unknown,
        "pad_token": named.padding,
        "vocab_size": model.text.vocabulary().len(),
        "model_max_length": model.context_tokens_max,
        "chat_template": model.text.template().map(|template| template.source()),
    })))
}
