//! From a request that was read to streams that run: lengths checked, one unit for all its choices.

use super::Service;
use super::choice::{Choice, ChoiceRules, Echo};
use super::common::Common;
use super::dialect::{Dialect, Logprobs};
use super::edge::Caller;
use super::error::ApiError;
use super::fields::Fields;
use super::session::{Envelope, Session};
use crate::gateway::{Generate, ServedModel, StreamSpec};
use std::sync::Arc;

/// A request of either dialect, read and tokenized.
pub struct Job {
    pub dialect: Dialect,
    pub model: Arc<ServedModel>,
    pub common: Common,
    pub logprobs: Logprobs,
    pub prompts: Vec<Prompt>,
    pub output: OutputLength,
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

impl Service {
    /// The model a request names; without a name, the only one there is.
    pub fn model(&self, fields: &Fields) -> Result<Arc<ServedModel>, ApiError> {
        let mut models = self.gateway.models();
        match fields.text("model")? {
            Some(name) => {
                let found = models.into_iter().find(|model| model.name == name);
                found.ok_or_else(|| ApiError::no_such_model(name))
            }
            None if models.len() == 1 => Ok(models.remove(0)),
            None => Err(ApiError::invalid(
                "model",
                "`model` is missing, and not exactly one is served here",
            )),
        }
    }

    pub async fn admit(&self, caller: Caller, job: Job) -> Result<Session, ApiError> {
        let streams = streams(&job, self.limits.streams_max)?;
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
        let choices = choices(&job);
        let prompt_tokens = job.prompts.iter().map(|prompt| prompt.ids.len() as u64).sum();
        let envelope = Envelope::new(job.dialect, job.model, job.logprobs, caller, job.common.tier);
        Ok(Session::new(
            envelope,
            generation,
            choices,
            job.common.choices,
            prompt_tokens,
        ))
    }
}

/// Choice index = prompt · n + k.
fn streams(job: &Job, streams_max: u32) -> Result<Vec<StreamSpec>, ApiError> {
    let count = job.prompts.len() as u64 * u64::from(job.common.choices);
    if count > u64::from(streams_max) {
        let message =
            format!("the request has {count} choices (prompts times `n`); at most {streams_max} are served");
        return Err(ApiError::invalid("n", message));
    }
    let mut streams = Vec::with_capacity(count as usize);
    for prompt in &job.prompts {
        let max_new_tokens = output_tokens(job, prompt.ids.len())?;
        streams.extend((0..job.common.choices).map(|_| StreamSpec {
            prompt: prompt.ids.clone(),
            max_new_tokens,
            sampling: job.common.sampling.clone(),
        }));
    }
    Ok(streams)
}

fn output_tokens(job: &Job, prompt_tokens: usize) -> Result<u32, ApiError> {
    let context = job.model.context_tokens_max as usize;
    let Some(room) = context.checked_sub(prompt_tokens) else {
        let message = format!("the prompt has {prompt_tokens} tokens; the model's context takes {context}");
        return Err(ApiError::too_long(prompt_param(job.dialect), message));
    };
    let tokens = match job.output {
        OutputLength::Asked { tokens, .. } => tokens as usize,
        OutputLength::UpTo(tokens) => room.min(tokens as usize).max(1),
        OutputLength::RestOfContext => room.max(1),
    };
    if tokens > room {
        let message = format!(
            "the prompt has {prompt_tokens} tokens and {tokens} more are asked for; the model's context takes {context}"
        );
        return Err(ApiError::too_long(length_param(job), message));
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

fn choices(job: &Job) -> Vec<Choice> {
    let rules = ChoiceRules {
        special: job.common.special,
        stops: job.common.stops.clone(),
        stop_tokens: job.common.sampling.stop_tokens.as_slice().into(),
        min_tokens: job.common.sampling.min_tokens,
    };
    let of_prompt = |prompt: &Prompt| {
        let echo = prompt.echo.clone().map(|text| Echo {
            text,
            prompt: prompt.ids.clone(),
        });
        Choice::new(&job.model.text, &rules, echo)
    };
    let repeated = |prompt| (0..job.common.choices).map(move |_| prompt);
    job.prompts.iter().flat_map(repeated).map(of_prompt).collect()
}
