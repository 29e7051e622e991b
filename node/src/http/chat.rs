//! `POST /v1/chat/completions`.

use super::Service;
use super::admission::{Job, OutputLength, Prompt, keep_last};
use super::common::{Common, Delivery};
use super::dialect::{Dialect, Logprobs};
use super::edge::Caller;
use super::encode::{TokensMax, encode};
use super::error::ApiError;
use super::free_json::FreeJson;
use super::last_turn::LastTurn;
use super::request::{ChatRequest, Integer, Messages, Shared};
use super::session::{ReasoningText, Shown};
use super::tools::Offer;
use super::{answer, idempotency, message, stream};
use crate::gateway::ServedModel;
use crate::text::families::{Family, Reasoning};
use crate::text::{AddSpecial, Conversation, Message};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::sync::Arc;

pub async fn create(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut request: ChatRequest = service
        .read_request(&headers, body, service.limits.body_bytes_max)
        .await?;
    request.seed_unless_given(caller.seed);
    let job = job(&service, request).await?;
    service.deliver(caller, job).await
}

impl Service {
    /// Runs a job and answers in the way it asks for.
    pub async fn deliver(&self, caller: Caller, job: Job) -> Result<Response, ApiError> {
        let delivery = job.common.delivery;
        if caller.resumed.is_some() {
            idempotency::check_resumable(&job)?;
        }
        let session = self.admit(caller, job).await?;
        match delivery {
            Delivery::Whole => answer::whole(session).await,
            Delivery::Stream(usage) => Ok(stream::streamed(session, usage, self.limits.keep_alive)),
        }
    }

    /// What a conversation is for the model.
    pub async fn chat_prompt(
        &self,
        model: Arc<ServedModel>,
        conversation: Conversation,
        last_turn: LastTurn,
        special: AddSpecial,
        tokens_max: TokensMax,
    ) -> Result<ChatPrompt, ApiError> {
        self.text_work
            .run(move || chat_prompt(&model, conversation, last_turn, special, tokens_max))
            .await
    }
}

pub async fn job(service: &Service, mut request: ChatRequest) -> Result<Job, ApiError> {
    let mut shared = request.take_shared();
    let model = service.model(shared.model.as_deref())?;
    let mut common = Common::new(&mut shared, &model.text)?;
    refuse_echo(&request)?;
    common.sampling.logprobs = top_logprobs(&request)?;
    let reasoning = match request.include_reasoning.unwrap_or(true) {
        true => ReasoningText::Shown,
        false => ReasoningText::Hidden,
    };
    let shown = shown(common.sampling.logprobs, &common, reasoning);
    let output = output_length(&shared)?;
    let last_turn = LastTurn::new(request.continue_final_message, request.add_generation_prompt)?;
    let (offer, tools) = Offer::new(request.tools, request.tool_choice, request.parallel_tool_calls)?;
    let mut conversation = conversation(
        request.messages,
        tools,
        request.add_generation_prompt,
        request.chat_template_kwargs.as_deref(),
    )?;
    if let Some(effort) = request.reasoning_effort {
        let variable = conversation.variables.entry("reasoning_effort");
        variable.or_insert(Value::String(effort));
    }
    let special = add_special(shared.add_special_tokens, AddSpecial::Never);
    let cut = output.prompt_tokens_max(common.truncation, model.context_tokens_max);
    let mut prompt = service
        .chat_prompt(
            model.clone(),
            conversation,
            last_turn,
            special,
            TokensMax::unless_cut(cut),
        )
        .await?;
    keep_last(&mut prompt.ids, cut);
    let answer = offer.rules(prompt.family, prompt.reasoning);
    let calls_max = offer.calls_max();
    if let Some(calls) = &answer.calls {
        let (model, calls, reasoning) = (model.clone(), calls.clone(), answer.reasoning);
        let content = common.form.take();
        let form = move || offer.form(&model.text, &calls, reasoning, content);
        common.form = service.text_work.run(form).await?;
    } else if answer.reasoning == Reasoning::Opened
        && let Some(content) = common.form.take()
    {
        let model = model.clone();
        let form = move || content.behind_reasoning(&model.text);
        common.form = Some(service.text_work.run(form).await?);
    }
    let prompts = vec![Prompt {
        ids: prompt.ids.into(),
        echo: None,
    }];
    Ok(Job {
        dialect: Dialect::Chat,
        model,
        common,
        shown,
        prompts,
        output,
        answer,
        calls_max,
    })
}

pub fn shown(logprobs: Option<u8>, common: &Common, reasoning: ReasoningText) -> Shown {
    Shown {
        logprobs: match logprobs {
            Some(_) => Logprobs::Shown(common.names),
            None => Logprobs::Hidden,
        },
        extras: common.extras,
        reasoning,
    }
}

pub fn add_special(asked: Option<bool>, default: AddSpecial) -> AddSpecial {
    match asked {
        Some(true) => AddSpecial::AsModelWants,
        Some(false) => AddSpecial::Never,
        None => default,
    }
}

fn refuse_echo(request: &ChatRequest) -> Result<(), ApiError> {
    match request.echo.unwrap_or(false) {
        true => Err(ApiError::unsupported("echo", "`echo` is for /v1/completions")),
        false => Ok(()),
    }
}

fn top_logprobs(request: &ChatRequest) -> Result<Option<u8>, ApiError> {
    let top = request.top_logprobs.map(Integer::get);
    match (request.logprobs.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as u8)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid(
            "top_logprobs",
            "`top_logprobs` needs `logprobs: true`",
        )),
    }
}

fn output_length(shared: &Shared) -> Result<OutputLength, ApiError> {
    match shared.output_tokens_max() {
        None => Ok(OutputLength::RestOfContext),
        Some((param, 0)) => Err(ApiError::invalid(param, format!("`{param}` must be at least 1"))),
        Some((param, tokens)) => Ok(OutputLength::Asked { tokens, param }),
    }
}

/// What the chat template is given.
pub fn conversation(
    messages: Option<Messages>,
    tools: Vec<Value>,
    add_generation_prompt: Option<bool>,
    variables: Option<&RawValue>,
) -> Result<Conversation, ApiError> {
    let given = messages.ok_or_else(|| ApiError::missing("messages"))?;
    Ok(Conversation {
        messages: message::messages(given)?,
        tools,
        add_generation_prompt: add_generation_prompt.unwrap_or(true),
        variables: template_variables(variables)?,
    })
}

/// What is ours to say: a client that set these would change the form of the prompt behind our back.
const OUR_VARIABLES: [&str; 14] = [
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "chat_template",
    "conversation",
    "tokenize",
    "return_dict",
    "return_tensors",
    "raise_exception",
];

/// A bound for memory: values of free form take many times their text.
const VARIABLES_BYTES_MAX: usize = 64 << 10;

fn template_variables(given: Option<&RawValue>) -> Result<Map<String, Value>, ApiError> {
    let invalid = |message: String| ApiError::invalid("chat_template_kwargs", message);
    let Some(given) = given else {
        return Ok(Map::new());
    };
    if given.get().len() > VARIABLES_BYTES_MAX {
        let message = format!("`chat_template_kwargs` has more than {VARIABLES_BYTES_MAX} bytes");
        return Err(invalid(message));
    }
    let variables: Option<Map<_, _>> = FreeJson::new()
        .read(given.get())
        .map_err(|error| invalid(format!("`chat_template_kwargs` has {error}")))?;
    let variables =
        variables.ok_or_else(|| invalid("`chat_template_kwargs` must be an object".to_string()))?;
    match OUR_VARIABLES
        .into_iter()
        .find(|name| variables.contains_key(*name))
    {
        Some(name) => Err(invalid(format!("`chat_template_kwargs` may not set `{name}`"))),
        None => Ok(variables),
    }
}

/// A conversation as the model sees it, and what to expect of its answer.
pub struct ChatPrompt {
    pub ids: Vec<u32>,
    pub reasoning: Reasoning,
    /// How calls are written; `None` only where no tool is offered.
    family: Option<&'static dyn Family>,
}

fn chat_prompt(
    model: &ServedModel,
    mut conversation: Conversation,
    last_turn: LastTurn,
    special: AddSpecial,
    tokens_max: TokensMax,
) -> Result<ChatPrompt, ApiError> {
    let Some(template) = model.text.template() else {
        let message = format!(
            "the model `{}` has no chat template; use /v1/completions",
            model.name
        );
        return Err(ApiError::unsupported("messages", message));
    };
    let family = template.tool_support().family();
    if family.is_none() && !conversation.tools.is_empty() {
        let message = format!(
            "the chat template of the model `{}` has calls of tools in a form that is not known here",
            model.name
        );
        return Err(ApiError::unsupported("tools", message));
    }
    if !template.source().contains("developer") {
        rename_developer(&mut conversation.messages);
    }
    let prompt = last_turn.render(template, conversation)?;
    let ids = encode(model, &prompt, special, tokens_max, "messages")?;
    match ids.is_empty() {
        true => Err(ApiError::invalid(
            "messages",
            "the chat template made an empty prompt of these messages",
        )),
        false => Ok(ChatPrompt {
            reasoning: Reasoning::after(&prompt, template.source()),
            ids,
            family,
        }),
    }
}

/// Newer clients say `developer` for what older templates know as `system`.
fn rename_developer(messages: &mut [Message]) {
    for message in messages.iter_mut().filter(|message| message.role == "developer") {
        message.role = "system".to_string();
    }
}
