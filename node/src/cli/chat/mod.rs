//! `cluster chat`.
//!
//! [`conversation`] is what is said and asked for, [`mod@setting`] what may be asked for, [`command`] what a line that begins with `/` means, [`answer`] one
//! answer on its way from the server to the screen, [`editor`] the line being typed, [`talk`] the loop over these.

mod answer;
mod command;
mod conversation;
mod editor;
mod setting;
mod talk;

use super::server::{Server, model_names};
use answer::{Screen, ask};
use anyhow::{anyhow, bail};
use clap::Args;
use conversation::Conversation;
use serde_json::Value;
use setting::Setting;
use std::io::{IsTerminal, Read, stdin, stdout};

const EXAMPLES: &str = "\
Examples:
  cluster chat
  cluster chat smollm2-135m --system 'Answer in one sentence.' --temperature 0.2
  echo 'Why is the sky blue?' | cluster chat
  cluster chat --url http://gpu-box:8000 --key \"$KEY\"

Inside, /help lists what can be done; Ctrl-C stops an answer, Ctrl-D leaves.";

/// Talk to a model in the terminal; with input from a pipe, print the answer alone
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Chat {
    /// The model's served name [default: the first that the server lists]
    model: Option<String>,
    /// What the model is told before everything else
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// How freely it chooses; 0 is always the likeliest token [default: the server's]
    #[arg(long, value_name = "NUMBER", value_parser = setting("temperature"))]
    temperature: Option<Value>,
    /// The longest answer, in tokens [default: the rest of the context]
    #[arg(long, value_name = "N", value_parser = setting("max_tokens"))]
    max_tokens: Option<Value>,
    /// The same seed gives the same answer
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = setting("seed"))]
    seed: Option<Value>,
    #[command(flatten)]
    server: Server,
}

impl Chat {
    pub fn run(self) -> anyhow::Result<()> {
        let runtime = super::runtime()?;
        let endpoint = self.server.endpoint()?;
        let model = match &self.model {
            Some(model) => model.clone(),
            None => runtime.block_on(model_names(&endpoint))?.swap_remove(0),
        };
        let mut conversation = Conversation::new(model);
        conversation.system.clone_from(&self.system);
        for (name, value) in self.settings() {
            conversation.set(name, value);
        }
        if stdin().is_terminal() && stdout().is_terminal() {
            let history = self.server.chat_history();
            return talk::run(&runtime, &endpoint, conversation, history);
        }
        let mut bytes = Vec::new();
        stdin().read_to_end(&mut bytes)?;
        let text = piped_text(bytes)?;
        if text.trim().is_empty() {
            bail!("there is nothing to say: stdin is empty");
        }
        conversation.say(text.trim_end());
        let answer = runtime.block_on(ask(&endpoint, &conversation, Screen::Plain))?;
        if let Some(words) = answer.why_no_text() {
            eprintln!("{words}");
        }
        // A script takes what it gets for all there is.
        if answer.is_broken_off() {
            bail!("the answer was broken off: its stream ended without a finish_reason");
        }
        answer.into_end()
    }

    fn settings(&self) -> Vec<(&'static str, Value)> {
        [
            ("temperature", &self.temperature),
            ("max_tokens", &self.max_tokens),
            ("seed", &self.seed),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
        .collect()
    }
}

fn piped_text(bytes: Vec<u8>) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to() + 1;
        anyhow!("stdin is not UTF-8 text (from byte {place} on): convert it first, as with `iconv -t UTF-8`")
    })
}

/// Of an option that is a field of the request: what no server would take is wrong usage.
fn setting(name: &'static str) -> impl Fn(&str) -> Result<Value, String> + Clone + Send + Sync + 'static {
    move |text| Setting::named(name)?.read(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_is_not_utf8_is_told_as_such_with_the_place() {
        assert_eq!(piped_text("Größe".into()).unwrap(), "Größe");
        let error = piped_text(b"Gr\xf6\xdfe".to_vec()).unwrap_err().to_string();
        assert!(
            error.contains("stdin is not UTF-8 text (from byte 3 on)"),
            "{error}"
        );
    }
}
