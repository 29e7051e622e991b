//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as vLLM has them.

use super::Service;
use super::chat::{add_special, conversation};
use super::encode::{TokensMax, encode};
use super::error::ApiError;
use super::last_turn::LastTurn;
use super::request::{DetokenizeRequest, TokenIds, TokenizeRequest};
use super::sampling::known_tokens;
use super::tools::Offer;
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
    let request: TokenizeRequest = service.read_request(&headers, body).await?;
    let model = service.model(request.model.as_deref())?;
    let is_strings_wanted = request.return_token_strs.unwrap_or(false);
    let tokens = tokens(&service, request, model.clone()).await?;
    let mut answer = json!({
        "count": tokens.len(),
        "max_model_len": model.context_tokens_max,
        "tokens": tokens,
        "token_strs": null,
    });
    if is_strings_wanted {
        let vocabulary = model.text.vocabulary();
        answer["token_strs"] = tokens
            .iter()
            .map(|id| Value::String(vocabulary.text(*id)))
            .collect();
    }
    Ok(Json(answer))
}

async fn tokens(
    service: &Service,
    request: TokenizeRequest,
    model: Arc<ServedModel>,
) -> Result<Vec<u32>, ApiError> {
    let Some(text) = request.prompt else {
        let special = add_special(request.add_special_tokens, AddSpecial::Never);
        let last_turn = LastTurn::new(request.continue_final_message, request.add_generation_prompt)?;
        let offer = Offer::new(request.tools, None, None)?;
        let conversation = conversation(
            request.messages,
            &offer,
            request.add_generation_prompt,
            request.chat_template_kwargs.as_deref(),
        )?;
        let prompt = service
            .chat_prompt(model, conversation, last_turn, special, TokensMax::Unbounded)
            .await?;
        return Ok(prompt.ids);
    };
    let special = add_special(request.add_special_tokens, AddSpecial::AsModelWants);
    service
        .text_work
        .run(move || encode(&model, &text, special, TokensMax::Unbounded, "prompt"))
        .await
}

pub async fn detokenize(
    State(service): State<Service>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let request: DetokenizeRequest = service.read_request(&headers, body).await?;
    let model = service.model(request.model.as_deref())?;
    let TokenIds(ids) = request.tokens.ok_or_else(|| ApiError::missing("tokens"))?;
    known_tokens("tokens", &ids, model.text.vocabulary())?;
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
