//! What has been said, and how the next answer is to be made.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Also what `/save` writes and `/load` reads.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Conversation {
    pub model: String,
    #[serde(default)]
    pub system: Option<String>,
    #[serde(default)]
    settings: Map<String, Value>,
    /// Beginning with the user's, by turns; the last one may still be without an answer.
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Message {
    role: Role,
    content: String,
    /// Of an answer that ended before its text began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
enum Role {
    User,
    Assistant,
}

impl Conversation {
    pub fn new(model: String) -> Conversation {
        Conversation {
            model,
            system: None,
            settings: Map::new(),
            messages: Vec::new(),
        }
    }

    /// The body of the next request.
    pub fn request(&self) -> Value {
        let mut body = self.settings.clone();
        body.insert("model".into(), json!(self.model));
        body.insert("messages".into(), Value::Array(self.told()));
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
        Value::Object(body)
    }

    fn told(&self) -> Vec<Value> {
        let system = self
            .system
            .iter()
            .map(|text| json!({"role": "system", "content": text}));
        let said = self.messages.iter().map(|message| json!(message));
        system.chain(said).collect()
    }

    pub fn say(&mut self, text: &str) {
        self.push(Role::User, text, None);
    }

    pub fn answered(&mut self, text: &str) {
        self.push(Role::Assistant, text, None);
    }

    /// The answer ended in its thoughts: they are all there is of it.
    pub fn thought(&mut self, thoughts: &str) {
        self.push(Role::Assistant, "", Some(thoughts));
    }

    fn push(&mut self, role: Role, text: &str, thoughts: Option<&str>) {
        self.messages.push(Message {
            role,
            content: text.to_owned(),
            reasoning_content: thoughts.map(str::to_owned),
        });
    }

    /// Takes back the last answer, if there is one. False: nothing has been said.
    pub fn forget_answer(&mut self) -> bool {
        self.messages.pop_if(|last| last.role == Role::Assistant);
        !self.messages.is_empty()
    }

    /// Takes back the last question and its answer; gives the question.
    pub fn undo(&mut self) -> Option<String> {
        self.forget_answer();
        self.messages.pop().map(|message| message.content)
    }

    /// Forgets what was said; settings stay.
    pub fn reset(&mut self) {
        self.messages.clear();
    }

    /// `null` goes back to what the server does by itself.
    pub fn set(&mut self, name: &str, value: Value) {
        match value {
            Value::Null => drop(self.settings.remove(name)),
            value => drop(self.settings.insert(name.to_owned(), value)),
        }
    }

    pub fn settings(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_turn() -> Conversation {
        let mut conversation = Conversation::new("m".to_owned());
        conversation.say("a?");
        conversation.answered("b.");
        conversation
    }

    #[test]
    fn a_request_holds_the_system_prompt_every_turn_and_every_setting() {
        let mut conversation = one_turn();
        conversation.system = Some("short".to_owned());
        conversation.set("temperature", json!(0.5));
        conversation.set("seed", json!(1));
        conversation.set("seed", Value::Null);
        conversation.say("c?");
        let body = conversation.request();
        assert_eq!(body["temperature"], json!(0.5));
        assert_eq!(body.get("seed"), None);
        let messages = json!([
            {"role": "system", "content": "short"},
            {"role": "user", "content": "a?"},
            {"role": "assistant", "content": "b."},
            {"role": "user", "content": "c?"},
        ]);
        assert_eq!(body["messages"], messages);
    }

    #[test]
    fn a_turn_can_be_asked_again_or_taken_back() {
        let mut conversation = one_turn();
        assert!(conversation.forget_answer());
        assert_eq!(
            conversation.request()["messages"],
            json!([{"role": "user", "content": "a?"}])
        );
        assert_eq!(conversation.undo().as_deref(), Some("a?"));
        assert!(!conversation.forget_answer());
        assert_eq!(conversation.undo(), None);
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let mut conversation = one_turn();
        conversation.set("stop", json!(["x"]));
        let text = serde_json::to_string(&conversation).unwrap();
        assert_eq!(serde_json::from_str::<Conversation>(&text).unwrap(), conversation);
    }
}
