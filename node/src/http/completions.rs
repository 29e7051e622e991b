//! `POST /v1/completions`.

use super::Service;
use super::admission::{Job, OutputLength, Prompt};
use super::body::read_fields;
use super::chat::{add_special, shown};
use super::common::Common;
use super::dialect::Dialect;
use super::edge::Caller;
use super::error::ApiError;
use super::fields::Fields;
use super::sampling::{TOP_LOGPROBS_MAX, token_ids};
use crate::gateway::ServedModel;
use crate::text::{AddSpecial, SpecialTokens, decode};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;
use std::sync::Arc;

/// OpenAI's default.
const OUTPUT_TOKENS_DEFAULT: u32 = 16;

pub async fn create(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let fields = read_fields(&headers, body, &service.limits).await?;
    let job = job(&service, &fields).await?;
    service.deliver(caller, job).await
}

/// Whether the prompt is given back before the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EchoPrompt {
    Yes,
    No,
}

/// One prompt as it was sent.
enum Given {
    Text(String),
    Tokens(Vec<u32>),
}

async fn job(service: &Service, fields: &Fields) -> Result<Job, ApiError> {
    let model = service.model(fields)?;
    let mut common = Common::read(fields, &model.text, &service.limits)?;
    let echo = match fields.flag("echo")?.unwrap_or(false) {
        true => EchoPrompt::Yes,
        false => EchoPrompt::No,
    };
    let logprobs = fields
        .integer("logprobs", 0..=TOP_LOGPROBS_MAX)?
        .map(|count| count as u8);
    common.sampling.logprobs = logprobs;
    common.sampling.prompt_logprobs = logprobs.filter(|_| echo == EchoPrompt::Yes);
    let output = output_length(fields, echo)?;
    let given = given_prompts(fields, &model)?;
    let special = add_special(fields, AddSpecial::AsModelWants)?;
    let work_model = model.clone();
    let show = common.special;
    let prompts = service
        .text_work
        .run(move || prompts(&work_model, given, special, echo, show))
        .await?;
    let logprobs = shown(logprobs, common.names);
    Ok(Job {
        dialect: Dialect::Completion,
        model,
        common,
        logprobs,
        prompts,
        output,
    })
}

fn output_length(fields: &Fields, echo: EchoPrompt) -> Result<OutputLength, ApiError> {
    let least = match echo {
        EchoPrompt::Yes => 0,
        EchoPrompt::No => 1,
    };
    for param in ["max_tokens", "max_completion_tokens"] {
        if let Some(tokens) = fields.integer(param, least..=u32::MAX.into())? {
            return Ok(OutputLength::Asked {
                tokens: tokens as u32,
                param,
            });
        }
    }
    Ok(OutputLength::UpTo(OUTPUT_TOKENS_DEFAULT))
}

/// A string, a list of strings, a list of token ids, or a list of such lists.
fn given_prompts(fields: &Fields, model: &ServedModel) -> Result<Vec<Given>, ApiError> {
    let tokens = |ids: &[Value]| Ok(Given::Tokens(token_ids("prompt", ids, model.text.vocabulary())?));
    match fields.required("prompt")? {
        Value::String(text) => Ok(vec![Given::Text(text.clone())]),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => Ok(vec![tokens(items)?]),
        Value::Array(items) if !items.is_empty() => {
            let one = |item: &Value| match item {
                Value::String(text) => Ok(Given::Text(text.clone())),
                Value::Array(ids) => tokens(ids),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(no_prompt()),
            };
            items.iter().map(one).collect()
        }
        _other => Err(no_prompt()),
    }
}

fn no_prompt() -> ApiError {
    let message =
        "`prompt` must be a string, a list of strings, a list of token ids or a list of lists of token ids";
    ApiError::invalid("prompt", message)
}

fn prompts(
    model: &ServedModel,
    given: Vec<Given>,
    special: AddSpecial,
    echo: EchoPrompt,
    show: SpecialTokens,
) -> Result<Vec<Prompt>, ApiError> {
    given
        .into_iter()
        .map(|given| prompt(model, given, special, echo, show))
        .collect()
}

fn prompt(
    model: &ServedModel,
    given: Given,
    special: AddSpecial,
    echo: EchoPrompt,
    show: SpecialTokens,
) -> Result<Prompt, ApiError> {
    let (ids, text) = match given {
        Given::Text(text) => {
            let ids = model.text.tokenizer().encode(&text, special);
            (
                ids.map_err(|error| ApiError::too_long("prompt", error.to_string()))?,
                Some(text),
            )
        }
        Given::Tokens(ids) => (ids, None),
    };
    if ids.is_empty() {
        // Nothing to compute logits from; a client that wants a free start sends the model's first token.
        return Err(ApiError::invalid("prompt", "the prompt is empty"));
    }
    let echo: Option<Arc<str>> = match echo {
        EchoPrompt::No => None,
        EchoPrompt::Yes => Some(
            text.unwrap_or_else(|| decode(model.text.vocabulary(), &ids, show))
                .into(),
        ),
    };
    Ok(Prompt {
        ids: ids.into(),
        echo,
    })
}
