//! What chat and completions ask for in the same words, checked.

use super::error::ApiError;
use super::extras::{Extras, TokenIds};
use super::form::{self, Form};
use super::logprobs::TokenNames;
use super::request::{Integer, ServiceTier, Shared};
use super::sampling::sampling;
use super::unserved;
use crate::text::{SpecialTokens, StopEnding, TextModel};
use proto::request::{Sampling, ServiceClass};
use std::sync::Arc;

pub struct Common {
    /// But for its grammar.
    pub sampling: Sampling,
    pub form: Option<Form>,
    /// `n`.
    pub choices: u32,
    pub stops: Arc<[String]>,
    pub stop_ending: StopEnding,
    pub delivery: Delivery,
    pub class: ServiceClass,
    /// The class in the client's word, where it named one.
    pub tier: Option<ServiceTier>,
    pub special: SpecialTokens,
    pub names: TokenNames,
    pub extras: Extras,
    pub truncation: Truncation,
}

/// What happens to a long prompt: the beginning may be cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truncation {
    Never,
    KeepLast(u32),
    /// As many tokens as the context has room for beside the answer.
    ToContext,
}

/// How the answer travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    Whole,
    Stream(UsageChunks),
}

/// When a stream tells the usage; at its end in a chunk without choices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UsageChunks {
    Never,
    AtEnd,
    OnEveryChoice,
    OnEveryChoiceAndAtEnd,
}

impl Common {
    pub fn new(shared: &mut Shared, text: &TextModel) -> Result<Common, ApiError> {
        unserved::refuse(shared)?;
        let delivery = delivery(shared);
        Ok(Common {
            choices: choices(shared)?,
            form: form::form(shared)?,
            sampling: sampling(shared, text)?,
            extras: extras(shared, delivery)?,
            truncation: truncation(shared)?,
            stops: shared.stop.take().unwrap_or_default().0.into(),
            stop_ending: match shared.include_stop_str_in_output.unwrap_or(false) {
                true => StopEnding::AfterStop,
                false => StopEnding::BeforeStop,
            },
            delivery,
            class: class(shared.service_tier),
            tier: shared.service_tier,
            special: match shared.skip_special_tokens.unwrap_or(true) {
                true => SpecialTokens::Skip,
                false => SpecialTokens::Show,
            },
            names: match shared.return_tokens_as_token_ids.unwrap_or(false) {
                true => TokenNames::Ids,
                false => TokenNames::Text,
            },
        })
    }
}

fn choices(shared: &Shared) -> Result<u32, ApiError> {
    let choices = shared.n.map_or(1, Integer::get);
    match shared.best_of.map(Integer::get) {
        Some(best_of) if best_of != choices => Err(ApiError::unsupported(
            "best_of",
            "`best_of` must equal `n`: choices are not ranked here",
        )),
        Some(_) | None => Ok(choices as u32),
    }
}

fn extras(shared: &Shared, delivery: Delivery) -> Result<Extras, ApiError> {
    let prompt_logprobs = shared.prompt_logprobs.map(|count| count.get() as u8);
    match (delivery, prompt_logprobs) {
        (Delivery::Stream(_), Some(_)) => Err(ApiError::unsupported(
            "prompt_logprobs",
            "`prompt_logprobs` is not for streams",
        )),
        (Delivery::Stream(_), None) | (Delivery::Whole, _) => Ok(Extras {
            token_ids: match shared.return_token_ids.unwrap_or(false) {
                true => TokenIds::Shown,
                false => TokenIds::Hidden,
            },
            prompt_logprobs,
        }),
    }
}

fn truncation(shared: &Shared) -> Result<Truncation, ApiError> {
    match shared.truncate_prompt_tokens.map(Integer::get) {
        None => Ok(Truncation::Never),
        Some(-1) => Ok(Truncation::ToContext),
        Some(0) => Err(ApiError::invalid(
            "truncate_prompt_tokens",
            "`truncate_prompt_tokens` must be at least 1, or -1 for what the context has room for",
        )),
        Some(tokens) => Ok(Truncation::KeepLast(tokens as u32)),
    }
}

fn delivery(shared: &Shared) -> Delivery {
    // Some clients send `stream_options` with every request; without a stream it means nothing.
    if !shared.stream.unwrap_or(false) {
        return Delivery::Whole;
    }
    let options = shared.stream_options.unwrap_or_default();
    let is_continuous = options.continuous_usage_stats.unwrap_or(false);
    Delivery::Stream(match (options.include_usage.unwrap_or(false), is_continuous) {
        (true, true) => UsageChunks::OnEveryChoiceAndAtEnd,
        (false, true) => UsageChunks::OnEveryChoice,
        (true, false) => UsageChunks::AtEnd,
        (false, false) => UsageChunks::Never,
    })
}

fn class(tier: Option<ServiceTier>) -> ServiceClass {
    match tier {
        None | Some(ServiceTier::Auto | ServiceTier::Default | ServiceTier::Scale) => ServiceClass::Default,
        Some(ServiceTier::Priority | ServiceTier::Fast) => ServiceClass::Priority,
        Some(ServiceTier::Flex) => ServiceClass::Flex,
    }
}
