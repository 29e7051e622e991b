//! `POST /v1/completions`.

use super::Service;
use super::admission::{Job, OutputLength, Prompt, Truncated, keep_last};
use super::chat::{add_special, shown};
use super::choice::CallsMax;
use super::common::Common;
use super::dialect::Dialect;
use super::edge::Caller;
use super::encode::{TokensMax, encode};
use super::error::ApiError;
use super::request::{self, CompletionRequest, Shared};
use super::sampling::known_tokens;
use super::session::ReasoningText;
use super::unserved;
use crate::gateway::ServedModel;
use crate::text::families::AnswerRules;
use crate::text::{AddSpecial, SpecialTokens, decode};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use std::sync::Arc;

/// OpenAI's default.
const OUTPUT_TOKENS_DEFAULT: u32 = 16;

pub async fn create(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut request: CompletionRequest = service
        .read_request(&headers, body, service.limits.body_bytes_max)
        .await?;
    request.seed_unless_given(caller.seed);
    let job = job(&service, request).await?;
    service.deliver(caller, job).await
}

/// Whether the prompt is given back before the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EchoPrompt {
    Yes,
    No,
}

pub async fn job(service: &Service, mut request: CompletionRequest) -> Result<Job, ApiError> {
    let mut shared = request.take_shared();
    let model = service.model(shared.model.as_deref())?;
    let mut common = Common::new(&mut shared, &model.text)?;
    unserved::refuse_what_chats_have(&request)?;
    let echo = match request.echo.unwrap_or(false) {
        true => EchoPrompt::Yes,
        false => EchoPrompt::No,
    };
    let logprobs = request.logprobs.map(|count| count.get() as u8);
    common.sampling.logprobs = logprobs;
    let echoed = logprobs.filter(|_| echo == EchoPrompt::Yes);
    common.sampling.prompt_logprobs = common.sampling.prompt_logprobs.max(echoed);
    let output = output_length(&shared, echo)?;
    let given = given_prompts(&mut request, &model)?;
    let special = add_special(shared.add_special_tokens, AddSpecial::AsModelWants);
    let work_model = model.clone();
    let rules = PromptRules {
        special,
        echo,
        show: common.special,
        tokens_max: output.prompt_tokens_max(common.truncation, model.context_tokens_max),
    };
    let prompts = service
        .text_work
        .run(move || prompts(&work_model, given, &rules))
        .await?;
    let shown = shown(logprobs, &common, ReasoningText::Shown);
    Ok(Job {
        dialect: Dialect::Completion,
        model,
        common,
        shown,
        prompts,
        output,
        answer: AnswerRules::default(),
        calls_max: CallsMax::default(),
    })
}

fn output_length(shared: &Shared, echo: EchoPrompt) -> Result<OutputLength, ApiError> {
    let Some((param, tokens)) = shared.output_tokens_max() else {
        return Ok(OutputLength::UpTo(OUTPUT_TOKENS_DEFAULT));
    };
    match (tokens, echo) {
        (0, EchoPrompt::No) => Err(ApiError::invalid(
            param,
            format!("`{param}` must be at least 1; 0 is for `echo`, which scores the prompt alone"),
        )),
        (tokens, EchoPrompt::No | EchoPrompt::Yes) => Ok(OutputLength::Asked { tokens, param }),
    }
}

fn given_prompts(
    request: &mut CompletionRequest,
    model: &ServedModel,
) -> Result<Vec<request::Prompt>, ApiError> {
    let prompts = request
        .prompt
        .take()
        .ok_or_else(|| ApiError::missing("prompt"))?
        .0;
    for prompt in &prompts {
        if let request::Prompt::Tokens(ids) = prompt {
            known_tokens("prompt", ids, model.text.vocabulary())?;
        }
    }
    Ok(prompts)
}

/// How a prompt becomes tokens.
struct PromptRules {
    special: AddSpecial,
    echo: EchoPrompt,
    /// Whether special tokens show in an echo.
    show: SpecialTokens,
    /// What is longer loses its beginning; `None`: nothing is cut.
    tokens_max: Option<usize>,
}

fn prompts(
    model: &ServedModel,
    given: Vec<request::Prompt>,
    rules: &PromptRules,
) -> Result<Vec<Prompt>, ApiError> {
    given
        .into_iter()
        .map(|given| prompt(model, given, rules))
        .collect()
}

fn prompt(model: &ServedModel, given: request::Prompt, rules: &PromptRules) -> Result<Prompt, ApiError> {
    let (mut ids, mut text) = match given {
        request::Prompt::Text(text) => {
            let tokens_max = TokensMax::unless_cut(rules.tokens_max);
            let ids = encode(model, &text, rules.special, tokens_max, "prompt")?;
            (ids, Some(text))
        }
        request::Prompt::Tokens(ids) => (ids, None),
    };
    if ids.is_empty() {
        // Nothing to compute logits from; a client that wants a free start sends the model's first token.
        return Err(ApiError::invalid("prompt", "the prompt is empty"));
    }
    if let Truncated::Yes = keep_last(&mut ids, rules.tokens_max) {
        text = None;
    }
    let echo: Option<Arc<str>> = match rules.echo {
        EchoPrompt::No => None,
        EchoPrompt::Yes => {
            let decoded = || decode(model.text.vocabulary(), &ids, rules.show);
            Some(text.unwrap_or_else(decoded).into())
        }
    };
    Ok(Prompt {
        ids: ids.into(),
        echo,
    })
}
