//! The messages of a chat, checked.

use super::error::ApiError;
use super::free_json::{FreeJson, TooMany};
use super::request::{Messages, RequestCall, RequestMessage, Role, Unserved};
use crate::text::{CallKind, CalledFunction, MadeCall, Message};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Of all calls together: JSON of free form takes many times its text in memory.
const ARGUMENTS_BYTES_MAX: usize = 1 << 20;

pub fn messages(given: Messages) -> Result<Vec<Message>, ApiError> {
    let Messages(given) = given;
    check_bytes(&given)?;
    let mut json = FreeJson::new();
    let given = given.into_iter().enumerate();
    given
        .map(|(index, given)| message(index, given, &mut json))
        .collect()
}

fn check_bytes(messages: &[RequestMessage]) -> Result<(), ApiError> {
    let calls = messages.iter().filter_map(|message| message.tool_calls.as_ref());
    let arguments = calls
        .flat_map(|calls| &calls.0)
        .filter_map(|call| call.function.arguments.as_ref());
    match arguments.map(|raw| raw.get().len()).sum::<usize>() > ARGUMENTS_BYTES_MAX {
        true => {
            let message =
                format!("the arguments of all `tool_calls` have more than {ARGUMENTS_BYTES_MAX} bytes");
            Err(ApiError::invalid("messages", message))
        }
        false => Ok(()),
    }
}

fn message(index: usize, given: RequestMessage, json: &mut FreeJson) -> Result<Message, ApiError> {
    let param = |field: &str| format!("messages[{index}].{field}");
    let calls = given.tool_calls.map_or_else(Vec::new, |calls| calls.0);
    match given.role {
        Role::Assistant => {}
        Role::System | Role::Developer | Role::User | Role::Tool if calls.is_empty() => {}
        Role::System | Role::Developer | Role::User | Role::Tool => {
            let message = "only the assistant's messages have `tool_calls`";
            return Err(ApiError::invalid(&param("tool_calls"), message));
        }
        Role::Function => {
            let message = "the role `function` is not supported; answer `tool_calls` with the role `tool`";
            return Err(ApiError::unsupported(&param("role"), message));
        }
    }
    if given.function_call == Some(Unserved::AsksForSomething) {
        let message = "`function_call` is not supported; give what was called as `tool_calls`";
        return Err(ApiError::unsupported(&param("function_call"), message));
    }
    if given.prefix == Some(Unserved::AsksForSomething) {
        let message = "`prefix` is not supported; the request's `continue_final_message` has the last message gone on with";
        return Err(ApiError::unsupported(&param("prefix"), message));
    }
    let content = match (given.content, given.role) {
        (Some(content), _) => Some(content.0),
        // Templates tell an assistant that only called from one that said nothing.
        (None, Role::Assistant) => given.refusal.or_else(|| calls.is_empty().then(String::new)),
        (None, Role::System | Role::Developer | Role::User | Role::Tool | Role::Function) => {
            let message = "`content` must be a string or a list of parts";
            return Err(ApiError::invalid(&param("content"), message));
        }
    };
    let calls = calls.into_iter().enumerate();
    Ok(Message {
        role: given.role.name().to_string(),
        content,
        name: given.name,
        reasoning_content: given.reasoning_content.or(given.reasoning),
        tool_calls: calls
            .map(|(call, given)| made_call(&param(&format!("tool_calls[{call}]")), given, json))
            .collect::<Result<_, _>>()?,
        tool_call_id: given.tool_call_id,
    })
}

fn made_call(param: &str, given: RequestCall, json: &mut FreeJson) -> Result<MadeCall, ApiError> {
    let arguments = given.function.arguments.as_deref();
    Ok(MadeCall {
        id: given.id.unwrap_or_default(),
        kind: CallKind::Function,
        function: CalledFunction {
            name: given.function.name,
            arguments: arguments.map_or_else(
                || Ok(Value::Object(Map::new())),
                |raw| read_arguments(&format!("{param}.function.arguments"), raw, json),
            )?,
        },
    })
}

/// Templates want an object; a model may have written something else, which is shown to it again as it was.
fn read_arguments(param: &str, raw: &RawValue, json: &mut FreeJson) -> Result<Value, ApiError> {
    let too_many = |error: TooMany| {
        let message = format!("the arguments of all `tool_calls` have {error}");
        ApiError::invalid("messages", message)
    };
    match json.read(raw.get()).map_err(too_many)? {
        Some(Value::String(text)) => match json.read(&text).map_err(too_many)? {
            Some(object @ Value::Object(_)) => Ok(object),
            Some(_) | None => Ok(Value::String(text)),
        },
        Some(object @ Value::Object(_)) => Ok(object),
        Some(_) | None => {
            let message = "`arguments` must be a string with the JSON of an object";
            Err(ApiError::invalid(param, message))
        }
    }
}
