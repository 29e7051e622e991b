//! From a request that was read to streams that run: lengths checked, one unit for all its choices.

use super::Service;
use super::choice::{CallsMax, Choice, ChoiceRules, Echo};
use super::common::{Common, Truncation};
use super::dialect::Dialect;
use super::edge::Caller;
use super::error::ApiError;
use super::form::Part;
use super::session::{Envelope, Session, Shown};
use crate::constraint::checker::CheckError;
use crate::constraint::workshop::Full;
use crate::gateway::{Generate, ServedModel, StreamSpec};
use crate::text::families::AnswerRules;
use proto::request::{Refusal, Sampling};
use proto::{RequestId, Span, TenantId};
use std::sync::Arc;

/// A request of either dialect, read and tokenized.
pub struct Job {
    pub dialect: Dialect,
    pub model: Arc<ServedModel>,
    pub common: Common,
    pub shown: Shown,
    pub prompts: Vec<Prompt>,
    pub output: OutputLength,
    /// What to tell apart in the answer.
    pub answer: AnswerRules,
    pub calls_max: CallsMax,
}

pub struct Prompt {
    pub ids: Arc<[u32]>,
    /// The text to give back before the answer.
    pub echo: Option<Arc<str>>,
}

/// How many tokens a choice may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputLength {
    /// The client's number, in the field of this name. It fits or the request is refused.
    Asked {
        tokens: u32,
        param: &'static str,
    },
    /// A default: this many, or what the context has room for.
    UpTo(u32),
    RestOfContext,
}

impl OutputLength {
    /// The most tokens that a prompt keeps; `None`: it is not cut.
    pub fn prompt_tokens_max(self, truncation: Truncation, context_tokens_max: u32) -> Option<usize> {
        let output = match self {
            OutputLength::Asked { tokens, .. } | OutputLength::UpTo(tokens) => tokens,
            OutputLength::RestOfContext => 1,
        };
        match truncation {
            Truncation::Never => None,
            Truncation::KeepLast(tokens) => Some(tokens as usize),
            Truncation::ToContext => Some(context_tokens_max.saturating_sub(output).max(1) as usize),
        }
    }
}

/// Whether a prompt has lost its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truncated {
    Yes,
    No,
}

pub fn keep_last(ids: &mut Vec<u32>, tokens_max: Option<usize>) -> Truncated {
    match ids.len().checked_sub(tokens_max.unwrap_or(usize::MAX)) {
        Some(surplus) if surplus > 0 => {
            ids.drain(..surplus);
            Truncated::Yes
        }
        Some(_) | None => Truncated::No,
    }
}

impl Service {
    /// The model a request names; without a name, the only one there is.
    pub fn model(&self, name: Option<&str>) -> Result<Arc<ServedModel>, ApiError> {
        let mut models = self.gateway.models();
        match name {
            Some(name) => {
                let found = models.into_iter().find(|model| model.name == name);
                found.ok_or_else(|| self.not_found(name))
            }
            None if models.is_empty() => Err(self.nothing_yet()),
            None if models.len() == 1 => Ok(models.remove(0)),
            None => Err(ApiError::invalid(
                "model",
                "`model` is missing, and several are served here: name one of those that GET /v1/models lists",
            )),
        }
    }

    /// Who asks for what will be served should ask again.
    fn not_found(&self, name: &str) -> ApiError {
        if self.gateway.awaits(name) {
            let message =
                format!("the model `{name}` is not served yet; `cluster status` tells what it waits for");
            return ApiError::unavailable(message, ASK_AGAIN);
        }
        match self.gateway.models().is_empty() {
            true => self.nothing_yet(),
            false => ApiError::no_such_model(name),
        }
    }

    /// Why no model is served here.
    pub fn nothing_yet(&self) -> ApiError {
        let reason = self.gateway.health().err();
        ApiError::unavailable(
            reason.unwrap_or_else(|| "no model is served here yet".to_owned()),
            ASK_AGAIN,
        )
    }

    pub async fn admit(&self, caller: Caller, job: Job) -> Result<Session, ApiError> {
        let streams = streams(&job, self.limits.streams_max)?;
        check_form(caller.tenant, &job).await?;
        let generation = self
            .gateway
            .open(Generate {
                request: caller.request,
                tenant: caller.tenant,
                model: job.model.name.clone(),
                class: job.common.class,
                streams,
            })
            .await?;
        let choices = choices(&job, caller.told_request());
        let prompt_tokens = job.prompts.iter().map(|prompt| prompt.ids.len() as u64).sum();
        let form_field = job.common.form.as_ref().map(|form| form.field);
        let envelope = Envelope::new(
            job.dialect,
            job.model,
            job.shown,
            caller,
            job.common.tier,
            form_field,
        );
        Ok(Session::new(
            envelope,
            generation,
            choices,
            job.common.choices,
            prompt_tokens,
        ))
    }
}

/// A grammar that cannot be followed is refused before anything is admitted.
async fn check_form(tenant: TenantId, job: &Job) -> Result<(), ApiError> {
    let Some(form) = &job.common.form else {
        return Ok(());
    };
    let grammars = &job.model.grammars;
    let error = match grammars.check(tenant, &form.grammar).await {
        Ok(()) => return Ok(()),
        Err(error @ CheckError::Busy(_)) => return Err(refused(error, form.field)),
        Err(error @ CheckError::Bad(_)) if form.parts.is_empty() => return Err(refused(error, form.field)),
        // The compiler speaks of a grammar that the client has not written.
        Err(CheckError::Bad(error)) => error,
    };
    tracing::debug!(%error, "a grammar of several parts is refused");
    for Part { field, grammar } in &form.parts {
        if let Err(error) = grammars.check(tenant, grammar).await {
            return Err(refused(error, field));
        }
    }
    let reason = format!(
        "the schemas of `{}` together are too large, or too costly to follow",
        form.field
    );
    Err(ApiError::bad_grammar(&reason).about(form.field))
}

fn refused(error: CheckError, field: &str) -> ApiError {
    match error {
        CheckError::Bad(error) => ApiError::bad_grammar(&format!("`{field}`: {error}")).about(field),
        CheckError::Busy(Full) => Refusal::Busy {
            retry_after: RETRY_AFTER_CHECKS,
        }
        .into(),
    }
}

/// What a client is told when too many grammars wait to be checked.
const RETRY_AFTER_CHECKS: Span = Span::from_secs(1);
/// Where a model is on its way.
const ASK_AGAIN: Span = Span::from_secs(1);

/// Choice index = prompt · n + k.
pub fn streams(job: &Job, streams_max: u32) -> Result<Vec<StreamSpec>, ApiError> {
    let count = job.prompts.len() as u64 * u64::from(job.common.choices);
    if count > u64::from(streams_max) {
        let message =
            format!("the request has {count} choices (prompts times `n`); at most {streams_max} are served");
        return Err(ApiError::invalid("n", message));
    }
    let sampling = Arc::new(Sampling {
        grammar: job.common.form.as_ref().map(|form| form.grammar.clone()),
        ..job.common.sampling.clone()
    });
    let mut streams = Vec::with_capacity(count as usize);
    for prompt in &job.prompts {
        let max_new_tokens = output_tokens(job, prompt.ids.len())?;
        streams.extend((0..job.common.choices).map(|_| StreamSpec {
            prompt: prompt.ids.clone(),
            max_new_tokens,
            sampling: sampling.clone(),
        }));
    }
    Ok(streams)
}

fn output_tokens(job: &Job, prompt_tokens: usize) -> Result<u32, ApiError> {
    let context = job.model.context_tokens_max as usize;
    let Some(room) = context.checked_sub(prompt_tokens) else {
        let needed = format!("it has {prompt_tokens} tokens");
        return Err(ApiError::beyond_context(
            prompt_param(job.dialect),
            context,
            &needed,
        ));
    };
    let tokens = match job.output {
        OutputLength::Asked { tokens, .. } => tokens as usize,
        OutputLength::UpTo(tokens) => room.min(tokens as usize).max(1),
        OutputLength::RestOfContext => room.max(1),
    };
    if tokens > room {
        let needed = format!("it has {prompt_tokens} tokens and {tokens} more are asked for");
        return Err(ApiError::beyond_context(length_param(job), context, &needed));
    }
    if job.common.sampling.min_tokens as usize > tokens {
        let message = format!("`min_tokens` is above the {tokens} tokens that the answer may have");
        return Err(ApiError::invalid("min_tokens", message));
    }
    Ok(tokens as u32)
}

fn prompt_param(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Chat => "messages",
        Dialect::Completion => "prompt",
    }
}

fn length_param(job: &Job) -> &'static str {
    match job.output {
        OutputLength::Asked { param, .. } => param,
        OutputLength::UpTo(_) | OutputLength::RestOfContext => prompt_param(job.dialect),
    }
}

pub fn choices(job: &Job, request: RequestId) -> Vec<Choice> {
    let rules = ChoiceRules {
        request,
        special: job.common.special,
        stops: job.common.stops.clone(),
        stop_ending: job.common.stop_ending,
        stop_tokens: job.common.sampling.stop_tokens.as_slice().into(),
        min_tokens: job.common.sampling.min_tokens,
        answer: job.answer.clone(),
        calls_max: job.calls_max,
    };
    let of_prompt = |(prompt, index): (&Prompt, u32)| {
        let echo = prompt.echo.clone().map(|text| Echo {
            text,
            top_max: job.common.sampling.logprobs.map_or(0, usize::from),
        });
        Choice::new(&job.model.text, &rules, index, prompt.ids.clone(), echo)
    };
    let repeated = |prompt| (0..job.common.choices).map(move |_| prompt);
    let prompts = job.prompts.iter().flat_map(repeated);
    prompts.zip(0..).map(of_prompt).collect()
}
