//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as vLLM has them.

use super::Service;
use super::chat::{add_special, conversation};
use super::encode::{TokensMax, encode};
use super::error::ApiError;
use super::last_turn::LastTurn;
use super::request::{DetokenizeRequest, TokenIds, TokenizeRequest};
use super::sampling::known_tokens;
use super::tools::Offer;
use super::unserved::refuse_template;
use crate::gateway::ServedModel;
use crate::text::{AddSpecial, Detokenizer, SpecialTokens};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;

/// Of an answer that is written while it is sent.
const TOKENS_AT_ONCE: usize = 1024;

/// Takes `prompt` or `messages`.
pub async fn tokenize(
    State(service): State<Service>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let request = service
        .read_request(&headers, body, service.limits.text_body_bytes_max)
        .await?;
    tokenized(&service, request).await
}

pub async fn tokenized(service: &Service, request: TokenizeRequest) -> Result<Response, ApiError> {
    let model = service.model(request.model.as_deref())?;
    refuse_template(request.chat_template)?;
    let is_strings_wanted = request.return_token_strs.unwrap_or(false);
    let tokens = tokens(service, request, model.clone()).await?;
    let head = format!(
        "{{\"count\":{},\"max_model_len\":{},\"tokens\":[",
        tokens.len(),
        model.context_tokens_max
    );
    let tokens = Arc::new(tokens);
    let ids = written(tokens.clone(), |id| json!(id));
    let answer = one(head).chain(ids);
    Ok(match is_strings_wanted {
        true => {
            let vocabulary = model.text.vocabulary().clone();
            let strings = written(tokens, move |id| json!(vocabulary.text(id)));
            in_parts(
                answer
                    .chain(one("],\"token_strs\":["))
                    .chain(strings)
                    .chain(one("]}")),
            )
        }
        false => in_parts(answer.chain(one("],\"token_strs\":null}"))),
    })
}

/// Something for each token, as the items of a JSON list.
fn written(
    tokens: Arc<Vec<u32>>,
    item: impl Fn(u32) -> Value + Send + 'static,
) -> impl Iterator<Item = String> + Send {
    (0..tokens.len()).step_by(TOKENS_AT_ONCE).map(move |start| {
        let end = tokens.len().min(start + TOKENS_AT_ONCE);
        let items = tokens[start..end].iter().map(|id| item(*id).to_string());
        let items = items.collect::<Vec<_>>().join(",");
        match start {
            0 => items,
            _later => format!(",{items}"),
        }
    })
}

fn one(part: impl Into<String>) -> impl Iterator<Item = String> + Send {
    std::iter::once(part.into())
}

/// JSON that is written while it is sent: whole, it could be ten times the request.
fn in_parts(parts: impl Iterator<Item = String> + Send + 'static) -> Response {
    let parts = stream::iter(parts.map(Ok::<_, Infallible>));
    (
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(parts),
    )
        .into_response()
}

async fn tokens(
    service: &Service,
    request: TokenizeRequest,
    model: Arc<ServedModel>,
) -> Result<Vec<u32>, ApiError> {
    let Some(text) = request.prompt else {
        if request.messages.is_none() {
            return Err(ApiError::invalid(
                "prompt",
                "`prompt` is missing, and so is `messages`",
            ));
        }
        let special = add_special(request.add_special_tokens, AddSpecial::Never);
        let last_turn = LastTurn::new(request.continue_final_message, request.add_generation_prompt)?;
        let (_, tools) = Offer::new(request.tools, None, None)?;
        let conversation = conversation(
            request.messages,
            tools,
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
) -> Result<Response, ApiError> {
    let request = service
        .read_request(&headers, body, service.limits.text_body_bytes_max)
        .await?;
    detokenized(&service, request)
}

pub fn detokenized(service: &Service, request: DetokenizeRequest) -> Result<Response, ApiError> {
    let model = service.model(request.model.as_deref())?;
    let TokenIds(ids) = request.tokens.ok_or_else(|| ApiError::missing("tokens"))?;
    known_tokens("tokens", &ids, model.text.vocabulary())?;
    let mut detokenizer = Detokenizer::new(model.text.vocabulary().clone(), SpecialTokens::Show);
    let texts = (0..ids.len() + 1).step_by(TOKENS_AT_ONCE).map(move |start| {
        let end = ids.len().min(start + TOKENS_AT_ONCE);
        let mut text: String = ids[start..end].iter().map(|id| detokenizer.push(*id)).collect();
        if end == ids.len() {
            text.push_str(&detokenizer.finish());
        }
        inside_quotes(text)
    });
    Ok(in_parts(one("{\"prompt\":\"").chain(texts).chain(one("\"}"))))
}

/// As it stands in a JSON string.
fn inside_quotes(text: String) -> String {
    let mut quoted = Value::String(text).to_string();
    quoted.pop();
    quoted.split_off(1)
}

/// Of the only model, or of the first.
pub async fn info(State(service): State<Service>) -> Result<Json<Value>, ApiError> {
    let models = service.gateway.models();
    let model = models.first().ok_or_else(|| service.nothing_yet())?;
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
