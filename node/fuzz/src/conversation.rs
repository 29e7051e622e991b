//! Conversations of any content, as they come out of the checks of requests.

use arbitrary::{Arbitrary, Result, Unstructured};
use node::text::{CallKind, CalledFunction, Conversation, MadeCall, Message};
use serde_json::{Map, Value};

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
const DEPTH_MAX: usize = 4;

/// What no client can write in fewer bytes than these.
pub const MESSAGE_BYTES: usize = r#"{"role":"user","content":""},"#.len();

pub fn conversation(input: &mut Unstructured) -> Result<Conversation> {
    Ok(Conversation {
        add_generation_prompt: input.arbitrary()?,
        tools: list(input, tool)?,
        variables: object(input, DEPTH_MAX)?,
        messages: list(input, message)?,
    })
}

fn message(input: &mut Unstructured) -> Result<Message> {
    let role = *input.choose(&ROLES)?;
    Ok(Message {
        role: role.to_owned(),
        content: input.arbitrary()?,
        name: input.arbitrary()?,
        reasoning_content: input.arbitrary()?,
        tool_calls: match role {
            "assistant" => list(input, call)?,
            _other => Vec::new(),
        },
        tool_call_id: input.arbitrary()?,
    })
}

fn call(input: &mut Unstructured) -> Result<MadeCall> {
    Ok(MadeCall {
        id: input.arbitrary()?,
        kind: CallKind::Function,
        function: CalledFunction {
            name: input.arbitrary()?,
            arguments: match input.arbitrary()? {
                true => Value::Object(object(input, DEPTH_MAX)?),
                false => Value::String(input.arbitrary()?),
            },
        },
    })
}

fn tool(input: &mut Unstructured) -> Result<Value> {
    let name: String = input.arbitrary()?;
    let mut function = Map::from_iter([("name".to_owned(), Value::String(name))]);
    if input.arbitrary()? {
        function.insert("description".to_owned(), Value::String(input.arbitrary()?));
    }
    if input.arbitrary()? {
        function.insert("parameters".to_owned(), Value::Object(object(input, DEPTH_MAX)?));
    }
    Ok(Value::Object(Map::from_iter([
        ("type".to_owned(), Value::String("function".to_owned())),
        ("function".to_owned(), Value::Object(function)),
    ])))
}

fn object(input: &mut Unstructured, depth: usize) -> Result<Map<String, Value>> {
    Ok(
        list(input, |input| Ok((input.arbitrary()?, value(input, depth)?)))?
            .into_iter()
            .collect(),
    )
}

fn value(input: &mut Unstructured, depth: usize) -> Result<Value> {
    let below = depth.saturating_sub(1);
    Ok(match input.int_in_range(0..=if depth == 0 { 4 } else { 6 })? {
        0 => Value::Null,
        1 => Value::Bool(input.arbitrary()?),
        2 => Value::from(i64::arbitrary(input)?),
        3 => Value::from(f64::arbitrary(input)?),
        4 => Value::String(input.arbitrary()?),
        5 => Value::Array(list(input, |input| value(input, below))?),
        _six => Value::Object(object(input, below)?),
    })
}

fn list<T>(input: &mut Unstructured, mut one: impl FnMut(&mut Unstructured) -> Result<T>) -> Result<Vec<T>> {
    let mut items = Vec::new();
    while input.arbitrary()? {
        items.push(one(input)?);
    }
    Ok(items)
}
