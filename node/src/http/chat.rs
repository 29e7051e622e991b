//! `POST /v1/chat/completions`.

use super::Service;
use super::admission::{Job, OutputLength, Prompt};
use super::body::read_fields;
use super::common::{Common, Delivery};
use super::dialect::{Dialect, Logprobs};
use super::edge::Caller;
use super::error::ApiError;
use super::fields::Fields;
use super::logprobs::TokenNames;
use super::sampling::TOP_LOGPROBS_MAX;
use super::{answer, stream};
use crate::gateway::ServedModel;
use crate::text::{AddSpecial, Conversation, Message};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;
use std::sync::Arc;

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

impl Service {
    /// Runs a job and answers in the way it asks for.
    pub async fn deliver(&self, caller: Caller, job: Job) -> Result<Response, ApiError> {
        let delivery = job.common.delivery;
        let session = self.admit(caller, job).await?;
        match delivery {
            Delivery::Whole => answer::whole(session).await,
            Delivery::Stream(usage) => Ok(stream::streamed(session, usage, self.limits.keep_alive)),
        }
    }

    /// The tokens of a conversation.
    pub async fn chat_tokens(
        &self,
        model: Arc<ServedModel>,
        conversation: Conversation,
        special: AddSpecial,
    ) -> Result<Vec<u32>, ApiError> {
        self.text_work
            .run(move || conversation_tokens(&model, conversation, special))
            .await
    }
}

async fn job(service: &Service, fields: &Fields) -> Result<Job, ApiError> {
    let model = service.model(fields)?;
    let mut common = Common::read(fields, &model.text, &service.limits)?;
    refuse_echo(fields)?;
    common.sampling.logprobs = top_logprobs(fields)?;
    let logprobs = shown(common.sampling.logprobs, common.names);
    let output = output_length(fields)?;
    let conversation = conversation(fields)?;
    let special = add_special(fields, AddSpecial::Never)?;
    let ids = service.chat_tokens(model.clone(), conversation, special).await?;
    let prompts = vec![Prompt {
        ids: ids.into(),
        echo: None,
    }];
    Ok(Job {
        dialect: Dialect::Chat,
        model,
        common,
        logprobs,
        prompts,
        output,
    })
}

pub fn shown(logprobs: Option<u8>, names: TokenNames) -> Logprobs {
    match logprobs {
        Some(_) => Logprobs::Shown(names),
        None => Logprobs::Hidden,
    }
}

pub fn add_special(fields: &Fields, default: AddSpecial) -> Result<AddSpecial, ApiError> {
    Ok(match fields.flag("add_special_tokens")? {
        Some(true) => AddSpecial::AsModelWants,
        Some(false) => AddSpecial::Never,
        None => default,
    })
}

fn refuse_echo(fields: &Fields) -> Result<(), ApiError> {
    match fields.flag("echo")?.unwrap_or(false) {
        true => Err(ApiError::unsupported("echo", "`echo` is for /v1/completions")),
        false => Ok(()),
    }
}

fn top_logprobs(fields: &Fields) -> Result<Option<u8>, ApiError> {
    let top = fields.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?;
    match (fields.flag("logprobs")?.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as u8)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid(
            "top_logprobs",
            "`top_logprobs` needs `logprobs: true`",
        )),
    }
}

fn output_length(fields: &Fields) -> Result<OutputLength, ApiError> {
    for param in ["max_completion_tokens", "max_tokens"] {
        if let Some(tokens) = fields.integer(param, 1..=u32::MAX.into())? {
            return Ok(OutputLength::Asked {
                tokens: tokens as u32,
                param,
            });
        }
    }
    Ok(OutputLength::RestOfContext)
}

pub fn conversation(fields: &Fields) -> Result<Conversation, ApiError> {
    let bad = || ApiError::invalid("messages", "`messages` must be a list of at least one message");
    let messages = fields
        .required("messages")?
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(bad)?;
    Ok(Conversation {
        messages: messages
            .iter()
            .enumerate()
            .map(|(index, value)| message(index, value))
            .collect::<Result<_, _>>()?,
        add_generation_prompt: fields.flag("add_generation_prompt")?.unwrap_or(true),
        variables: fields
            .object("chat_template_kwargs")?
            .cloned()
            .unwrap_or_default(),
    })
}

fn message(index: usize, value: &Value) -> Result<Message, ApiError> {
    let param = |field: &str| format!("messages[{index}].{field}");
    let role = value.get("role").and_then(Value::as_str);
    let role = match role {
        Some("system" | "developer" | "user" | "assistant") => role.unwrap_or_default(),
        Some("tool" | "function") => {
            return Err(ApiError::unsupported(
                &param("role"),
                "messages of tools are not supported",
            ));
        }
        Some(_) | None => {
            let message = "`role` must be system, developer, user or assistant";
            return Err(ApiError::invalid(&param("role"), message));
        }
    };
    if value
        .get("tool_calls")
        .is_some_and(|calls| calls.as_array().is_none_or(|calls| !calls.is_empty()) && !calls.is_null())
    {
        return Err(ApiError::unsupported(
            &param("tool_calls"),
            "tool calls are not supported",
        ));
    }
    Ok(Message {
        role: role.to_string(),
        content: content(&param("content"), value.get("content"))?,
        name: value.get("name").and_then(Value::as_str).map(str::to_string),
    })
}

/// A string, or parts of type `text`, which are joined by line breaks as in vLLM.
fn content(param: &str, value: Option<&Value>) -> Result<String, ApiError> {
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let texts: Vec<&str> = parts
                .iter()
                .map(|part| part_text(param, part))
                .collect::<Result<_, _>>()?;
            Ok(texts.join("\n"))
        }
        Some(_) | None => Err(ApiError::invalid(
            param,
            "`content` must be a string or a list of parts",
        )),
    }
}

fn part_text<'a>(param: &str, part: &'a Value) -> Result<&'a str, ApiError> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => {
            let text = part.get("text").and_then(Value::as_str);
            text.ok_or_else(|| ApiError::invalid(param, "a part of type `text` must have a string `text`"))
        }
        Some(_) => Err(ApiError::unsupported(
            param,
            "only parts of type `text` are supported",
        )),
        None => Err(ApiError::invalid(
            param,
            "each part of `content` must have a `type`",
        )),
    }
}

fn conversation_tokens(
    model: &ServedModel,
    mut conversation: Conversation,
    special: AddSpecial,
) -> Result<Vec<u32>, ApiError> {
    let Some(template) = model.text.template() else {
        let message = format!(
            "the model `{}` has no chat template; use /v1/completions",
            model.name
        );
        return Err(ApiError::unsupported("messages", message));
    };
    if !template.source().contains("developer") {
        rename_developer(&mut conversation.messages);
    }
    let prompt = template
        .render(&conversation)
        .map_err(|error| ApiError::invalid("messages", error.to_string()))?;
    let ids = model.text.tokenizer().encode(&prompt, special);
    let ids = ids.map_err(|error| ApiError::too_long("messages", error.to_string()))?;
    match ids.is_empty() {
        true => Err(ApiError::invalid(
            "messages",
            "the chat template made an empty prompt of these messages",
        )),
        false => Ok(ids),
    }
}

/// Newer clients say `developer` for what older templates know as `system`.
fn rename_developer(messages: &mut [Message]) {
    for message in messages.iter_mut().filter(|message| message.role == "developer") {
        message.role = "system".to_string();
    }
}
