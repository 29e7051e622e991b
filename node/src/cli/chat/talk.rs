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
        if answer.text.is_empty() {
            self.conversation = before;
        } else {
            self.conversation.answered(&answer.text);
        }
        if let Some(pace) = answer.pace.in_words() {
            tell!("\x1b[2m{pace}\x1b[0m");
        }
        answer.end.map_err(anyhow::Error::msg)
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
