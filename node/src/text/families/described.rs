//! Tools for a model whose template knows of none: described in the system message, in the manner of Hermes.

use crate::text::conversation::{CalledFunction, Conversation, MadeCall, Message};
use crate::text::python_json;
use serde_json::{Value, json};

const BEFORE: &str = "You can call functions. These are the functions, each described in JSON:\n<tools>\n";
const AFTER: &str = "\n</tools>\n\nTo call a function, write its name and arguments as JSON between these marks, \
    once for each call:\n<tool_call>\n{\"name\": \"the name\", \"arguments\": {\"an argument\": \"its value\"}}\n</tool_call>";

/// The same conversation in system, user and assistant messages alone.
pub fn tools_described(conversation: &Conversation) -> Conversation {
    let mut messages = Vec::with_capacity(conversation.messages.len() + 1);
    for message in &conversation.messages {
        match message.role.as_str() {
            "tool" => add_response(message, &mut messages),
            _other => messages.push(with_calls_as_text(message)),
        }
    }
    if !conversation.tools.is_empty() {
        add_tools(&conversation.tools, &mut messages);
    }
    Conversation {
        messages,
        tools: Vec::new(),
        add_generation_prompt: conversation.add_generation_prompt,
        variables: conversation.variables.clone(),
    }
}

fn add_tools(tools: &[Value], messages: &mut Vec<Message>) {
    let lines: Vec<String> = tools.iter().map(written).collect();
    let tools = format!("{BEFORE}{}{AFTER}", lines.join("\n"));
    match messages.first_mut() {
        Some(first) if first.role == "system" || first.role == "developer" => {
            first.content = Some(joined(first.content.as_deref(), "\n\n", &tools));
        }
        Some(_) | None => messages.insert(0, said("system", tools)),
    }
}

/// Answers to several calls stand in one message, as many templates want users and assistants to take turns.
fn add_response(message: &Message, messages: &mut Vec<Message>) {
    let content = message.content.as_deref().unwrap_or_default();
    let response = format!("<tool_response>\n{content}\n</tool_response>");
    match messages.last_mut() {
        Some(last) if last.role == "user" && ends_with_response(last) => {
            last.content = Some(joined(last.content.as_deref(), "\n", &response));
        }
        Some(_) | None => messages.push(said("user", response)),
    }
}

fn ends_with_response(message: &Message) -> bool {
    let content = message.content.as_deref().unwrap_or_default();
    content.starts_with("<tool_response>") && content.ends_with("</tool_response>")
}

fn with_calls_as_text(message: &Message) -> Message {
    let calls: Vec<String> = message.tool_calls.iter().map(call_text).collect();
    let content = match calls.is_empty() {
        true => message.content.clone(),
        false => Some(joined(message.content.as_deref(), "\n", &calls.join("\n"))),
    };
    Message {
        content: Some(content.unwrap_or_default()),
        tool_calls: Vec::new(),
        ..message.clone()
    }
}

fn call_text(call: &MadeCall) -> String {
    let CalledFunction { name, arguments } = &call.function;
    let call = json!({"name": name, "arguments": arguments});
    format!("<tool_call>\n{}\n</tool_call>", written(&call))
}

fn written(value: &Value) -> String {
    python_json::line(value).expect("a JSON value can be written")
}

fn joined(before: Option<&str>, between: &str, after: &str) -> String {
    match before {
        Some(before) if !before.is_empty() => format!("{before}{between}{after}"),
        Some(_) | None => after.to_string(),
    }
}

fn said(role: &str, content: String) -> Message {
    Message {
        role: role.to_string(),
        content: Some(content),
        ..Message::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(messages: Value, tools: Value) -> Conversation {
        Conversation {
            messages: serde_json::from_value(messages).unwrap(),
            tools: serde_json::from_value(tools).unwrap(),
            ..Conversation::default()
        }
    }

    fn told(conversation: &Conversation) -> Vec<(String, String)> {
        let told = tools_described(conversation);
        assert!(told.tools.is_empty());
        let plain = |message: Message| {
            assert!(message.tool_calls.is_empty());
            (message.role, message.content.unwrap())
        };
        told.messages.into_iter().map(plain).collect()
    }

    #[test]
    fn tools_are_described_in_the_system_message() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}, {"type": "function"}]);
        let alone = told(&conversation(
            json!([{"role": "user", "content": "Hi"}]),
            tools.clone(),
        ));
        assert_eq!(alone[0].0, "system");
        assert!(alone[0].1.contains(
            "<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"f\"}}\n{\"type\": \"function\"}\n</tools>"
        ));
        assert_eq!(alone[1], ("user".into(), "Hi".into()));

        let system = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
        let joined = told(&conversation(system, tools));
        assert_eq!(joined.len(), 2);
        assert_eq!(joined[0].1, format!("Be brief.\n\n{}", alone[0].1));
    }

    #[test]
    fn calls_and_their_answers_become_text() {
        let call = |name: &str| json!({"id": "1", "type": "function", "function": {"name": name, "arguments": {"a": 1}}});
        let messages = json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": null, "tool_calls": [call("f"), call("g")]},
            {"role": "tool", "content": "one", "tool_call_id": "1"},
            {"role": "tool", "content": "two", "tool_call_id": "2"},
            {"role": "assistant", "content": "So.", "tool_calls": [call("f")]},
        ]);
        let call = |name| {
            format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{\"a\": 1}}}}\n</tool_call>")
        };
        let expected = [
            ("user", "Hi".to_string()),
            ("assistant", format!("{}\n{}", call("f"), call("g"))),
            (
                "user",
                "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>".to_string(),
            ),
            ("assistant", format!("So.\n{}", call("f"))),
        ];
        let expected = expected.map(|(role, content)| (role.to_string(), content));
        assert_eq!(told(&conversation(messages, json!([]))), expected);
    }
}
