//! What chat and completions ask for in the same words.

use super::error::ApiError;
use super::fields::Fields;
use super::limits::Limits;
use super::logprobs::TokenNames;
use super::sampling::sampling;
use crate::text::{SpecialTokens, TextModel};
use proto::request::{Sampling, ServiceClass};
use serde_json::Value;

const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 1024;

pub struct Common {
    pub sampling: Sampling,
    /// `n`.
    pub choices: u32,
    pub stops: Vec<String>,
    pub delivery: Delivery,
    pub class: ServiceClass,
    /// The class in the client's word, where it named one.
    pub tier: Option<String>,
    pub special: SpecialTokens,
    pub names: TokenNames,
}

/// How the answer travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    Whole,
    Stream(UsageChunks),
}

/// When a stream tells the usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UsageChunks {
    Never,
    AtEnd,
    OnEveryChunk,
}

impl Common {
    pub fn read(fields: &Fields, text: &TextModel, limits: &Limits) -> Result<Common, ApiError> {
        refuse_what_is_not_served(fields)?;
        let choices = choices(fields, limits)?;
        Ok(Common {
            sampling: sampling(fields, text)?,
            choices,
            stops: stops(fields)?,
            delivery: delivery(fields)?,
            class: class(fields)?,
            tier: fields.text("service_tier")?.map(str::to_string),
            special: match fields.flag("skip_special_tokens")?.unwrap_or(true) {
                true => SpecialTokens::Skip,
                false => SpecialTokens::Show,
            },
            names: match fields.flag("return_tokens_as_token_ids")?.unwrap_or(false) {
                true => TokenNames::Ids,
                false => TokenNames::Text,
            },
        })
    }
}

/// Fields that would change the answer and are not served: refused, unless their value asks for nothing.
const NOT_SERVED: [&str; 24] = [
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "suffix",
    "use_beam_search",
    "bad_words",
    "allowed_token_ids",
    "include_stop_str_in_output",
    "prompt_logprobs",
    "truncate_prompt_tokens",
    "return_token_ids",
    "logits_processors",
    "chat_template",
    "continue_final_message",
    "audio",
    "modalities",
    "web_search_options",
];

fn refuse_what_is_not_served(fields: &Fields) -> Result<(), ApiError> {
    let no_tool_is_wanted = fields.get("tool_choice").is_some_and(|choice| choice == "none");
    for name in NOT_SERVED {
        let Some(value) = fields.get(name) else { continue };
        let is_harmless = asks_for_nothing(name, value) || (name == "tools" && no_tool_is_wanted);
        if !is_harmless {
            return Err(ApiError::unsupported(
                name,
                format!("`{name}` is not supported with this value"),
            ));
        }
    }
    Ok(())
}

fn asks_for_nothing(name: &str, value: &Value) -> bool {
    match name {
        "response_format" => value.get("type").is_some_and(|kind| kind == "text"),
        "tool_choice" | "function_call" => value == "none" || value == "auto",
        "modalities" => *value == serde_json::json!(["text"]),
        _other => is_empty(value),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

fn choices(fields: &Fields, limits: &Limits) -> Result<u32, ApiError> {
    let most = i64::from(limits.choices_max);
    let choices = fields.integer("n", 1..=most)?.unwrap_or(1);
    match fields.integer("best_of", 1..=most)? {
        Some(best_of) if best_of != choices => Err(ApiError::unsupported(
            "best_of",
            "`best_of` must equal `n`: choices are not ranked here",
        )),
        Some(_) | None => Ok(choices as u32),
    }
}

fn stops(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let stops = match fields.get("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => stops.iter().map(stop_text).collect::<Result<_, _>>()?,
        Some(_) => {
            return Err(ApiError::invalid(
                "stop",
                "`stop` must be a string or a list of strings",
            ));
        }
    };
    if stops.len() > STOPS_MAX {
        return Err(ApiError::invalid(
            "stop",
            format!("`stop` has more than {STOPS_MAX} strings"),
        ));
    }
    if stops
        .iter()
        .any(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX)
    {
        let message = format!("each string in `stop` must have 1 to {STOP_BYTES_MAX} bytes");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(stops)
}

fn stop_text(stop: &Value) -> Result<String, ApiError> {
    let text = stop.as_str().map(str::to_string);
    text.ok_or_else(|| ApiError::invalid("stop", "`stop` must be a string or a list of strings"))
}

fn delivery(fields: &Fields) -> Result<Delivery, ApiError> {
    // Some clients send `stream_options` with every request; without a stream it means nothing.
    if !fields.flag("stream")?.unwrap_or(false) {
        return Ok(Delivery::Whole);
    }
    let Some(options) = fields.object("stream_options")? else {
        return Ok(Delivery::Stream(UsageChunks::Never));
    };
    let is_set = |name: &str| match options.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(ApiError::invalid(
            "stream_options",
            format!("`stream_options.{name}` must be true or false"),
        )),
    };
    Ok(Delivery::Stream(
        match (is_set("include_usage")?, is_set("continuous_usage_stats")?) {
            (_, true) => UsageChunks::OnEveryChunk,
            (true, false) => UsageChunks::AtEnd,
            (false, false) => UsageChunks::Never,
        },
    ))
}

fn class(fields: &Fields) -> Result<ServiceClass, ApiError> {
    match fields.text("service_tier")? {
        None | Some("auto" | "default") => Ok(ServiceClass::Default),
        Some("priority") => Ok(ServiceClass::Priority),
        Some("flex") => Ok(ServiceClass::Flex),
        Some(_) => {
            let message = "`service_tier` must be auto, default, priority or flex";
            Err(ApiError::invalid("service_tier", message))
        }
    }
}
