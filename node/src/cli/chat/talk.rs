//! The loop of a conversation on a terminal.

use super::answer::{Screen, ask};
use super::command::{Command, HELP};
use super::conversation::Conversation;
use super::editor::{Line, Lines};
use crate::cli::server::model_names;
use crate::cli::tell::tell;
use crate::client::endpoint::Endpoint;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// Until the person leaves. Errors of the server are told and the conversation goes on.
pub fn run(
    runtime: &Runtime,
    endpoint: &Endpoint,
    conversation: Conversation,
    history: Option<PathBuf>,
) -> anyhow::Result<()> {
    tell!("{} · /help · Ctrl-D leaves", conversation.model);
    let mut lines = Lines::new(history)?;
    let mut talk = Talk {
        runtime,
        endpoint,
        conversation,
    };
    loop {
        match lines.next()? {
            Line::Text(text) => {
                if let Next::Leave = talk.take(&text) {
                    return Ok(());
                }
            }
            Line::Dropped => tell!("(Ctrl-D or /exit leaves)"),
            Line::End => return Ok(()),
        }
    }
}

struct Talk<'a> {
    runtime: &'a Runtime,
    endpoint: &'a Endpoint,
    conversation: Conversation,
}

#[derive(PartialEq, Eq)]
enum Next {
    Stay,
    Leave,
}

impl Talk<'_> {
    fn take(&mut self, text: &str) -> Next {
        let told = match text {
            "" => Ok(()),
            text if text.starts_with("//") => self.say(&text[1..]),
            text if text.starts_with('/') => match Command::parse(text) {
                Ok(Command::Exit) => return Next::Leave,
                Ok(command) => self.obey(command),
                Err(words) => Err(anyhow::Error::msg(words)),
            },
            text => self.say(text),
        };
        if let Err(error) = told {
            eprintln!("error: {error:#}");
        }
        Next::Stay
    }

    fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Help => tell!("{HELP}"),
            Command::System(None) => tell!("{}", self.conversation.system.as_deref().unwrap_or("(none)")),
            Command::System(Some(text)) => {
                self.conversation.system = Some(text).filter(|text| text != "none")
            }
            Command::Model(None) => self.show_models()?,
            Command::Model(Some(name)) => self.change_model(name)?,
            Command::Set { name, value } => self.conversation.set(name, value),
            Command::ShowSettings => self.show_settings(),
            Command::Retry => self.retry()?,
            Command::Undo => match self.conversation.undo() {
                Some(text) => tell!("taken back: {text}"),
                None => tell!("nothing has been said yet"),
            },
            Command::Reset => self.conversation.reset(),
            Command::Save(path) => self.save(&path)?,
            Command::Load(path) => self.load(&path)?,
            Command::Exit => {}
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let before = self.conversation.clone();
        self.conversation.say(text);
        self.answer(before)
    }

    fn retry(&mut self) -> anyhow::Result<()> {
        let before = self.conversation.clone();
        if !self.conversation.forget_answer() {
            tell!("nothing has been said yet");
            return Ok(());
        }
        self.answer(before)
    }

    /// Where no answer comes, all is as it was before: a question can be asked again in other words, and what was to get
    /// another answer keeps the one it had.
    fn answer(&mut self, before: Conversation) -> anyhow::Result<()> {
        let asked = self
            .runtime
            .block_on(ask(self.endpoint, &self.conversation, Screen::Terminal));
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => {
                self.conversation = before;
                return Err(error);
            }
        };
        match (answer.text.as_str(), answer.thoughts.as_str()) {
            ("", "") => self.conversation = before,
            ("", thoughts) => self.conversation.thought(thoughts),
            (text, _) => self.conversation.answered(text),
        }
        for words in answer.why_no_text().into_iter().chain(answer.pace.in_words()) {
            tell!("\x1b[2m{words}\x1b[0m");
        }
        answer.into_end()
    }

    fn change_model(&mut self, name: String) -> anyhow::Result<()> {
        let names = self.runtime.block_on(model_names(self.endpoint))?;
        if !names.contains(&name) {
            bail!("there is no model {name}; /model lists those there are");
        }
        tell!("talking to {name}");
        self.conversation.model = name;
        Ok(())
    }

    fn show_models(&self) -> anyhow::Result<()> {
        for name in self.runtime.block_on(model_names(self.endpoint))? {
            let mark = if name == self.conversation.model { '*' } else { ' ' };
            tell!("{mark} {name}");
        }
        Ok(())
    }

    fn show_settings(&self) {
        for (name, value) in self.conversation.settings() {
            tell!("{name} {value}");
        }
        if self.conversation.settings().next().is_none() {
            tell!("all as the server has them");
        }
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.conversation)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
        tell!("saved to {}", path.display());
        Ok(())
    }

    fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        self.conversation = serde_json::from_str(&text)
            .with_context(|| format!("{}: no saved conversation", path.display()))?;
        tell!(
            "loaded {}, talking to {}",
            path.display(),
            self.conversation.model
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::channel::Trust;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    /// Where a server gives one answer of these chunks.
    fn server(chunks: &'static [&'static str]) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 4096]).unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            socket.write_all(head.as_bytes()).unwrap();
            for chunk in chunks {
                write!(socket, "data: {chunk}\n\n").unwrap();
            }
        });
        Endpoint::parse(&url, None, Trust::Public).unwrap()
    }

    const THOUGHTS_ALONE: &[&str] = &[
        r#"{"choices":[{"index":0,"delta":{"reasoning_content":"Hm, "}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"reasoning_content":"well"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#,
        "[DONE]",
    ];
    const NOTHING: &[&str] = &[
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ];

    fn after_saying(words: &str, chunks: &'static [&'static str]) -> Conversation {
        let runtime = crate::cli::runtime().unwrap();
        let mut talk = Talk {
            runtime: &runtime,
            endpoint: &server(chunks),
            conversation: Conversation::new("m".to_owned()),
        };
        talk.say(words).unwrap();
        talk.conversation
    }

    #[test]
    fn a_turn_whose_answer_was_thoughts_alone_stays_and_can_be_asked_again() {
        let mut conversation = after_saying("yes?", THOUGHTS_ALONE);
        let saved = serde_json::to_value(&conversation).unwrap();
        let messages = serde_json::json!([
            {"role": "user", "content": "yes?"},
            {"role": "assistant", "content": "", "reasoning_content": "Hm, well"},
        ]);
        assert_eq!(saved["messages"], messages);
        assert!(conversation.forget_answer());
        assert_eq!(conversation.undo().as_deref(), Some("yes?"));
    }

    #[test]
    fn a_question_to_which_nothing_came_can_be_asked_in_other_words() {
        assert_eq!(after_saying("yes?", NOTHING).undo(), None);
    }
}
