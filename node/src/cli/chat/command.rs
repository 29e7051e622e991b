//! Lines that begin with `/`.

use super::setting::Setting;
use crate::path::of_person;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    Help,
    /// `None`: show it.
    System(Option<String>),
    /// `None`: show which there are.
    Model(Option<String>),
    Set {
        name: &'static str,
        value: Value,
    },
    ShowSettings,
    Retry,
    Undo,
    Reset,
    Save(PathBuf),
    Load(PathBuf),
    Exit,
}

pub const NAMES: [&str; 10] = [
    "/exit", "/help", "/load", "/model", "/reset", "/retry", "/save", "/set", "/system", "/undo",
];

pub const HELP: &str = "\
/system [TEXT]     what the model is told first; without TEXT, show it (/system none removes it)
/model [NAME]      talk to another model; without NAME, show which there are
/set [NAME VALUE]  temperature, top_p, top_k, min_p, max_tokens, seed, stop, …_penalty; VALUE default undoes it
/retry             another answer to the last message
/undo              take back the last message and its answer
/reset             begin anew; settings stay
/save FILE         write the conversation as JSON
/load FILE         go on with one that was saved
/help              this list
/exit              leave (also Ctrl-D)

A line that ends in \\ goes on in the next one; so does everything between \"\"\" and \"\"\". Ctrl-C stops an answer.
A message that begins with / is written with // at its beginning.";

impl Command {
    /// `line` begins with `/`. An error says what would have been right.
    pub fn parse(line: &str) -> Result<Command, String> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let text = || (!rest.is_empty()).then(|| rest.to_owned());
        let file = || {
            text()
                .map(|text| of_person(&text))
                .ok_or(format!("{name} needs a FILE"))
        };
        match name {
            "/help" | "/?" => Ok(Command::Help),
            "/system" => Ok(Command::System(text())),
            "/model" => Ok(Command::Model(text())),
            "/set" if rest.is_empty() => Ok(Command::ShowSettings),
            "/set" => set(rest),
            "/retry" => Ok(Command::Retry),
            "/undo" => Ok(Command::Undo),
            "/reset" => Ok(Command::Reset),
            "/save" => file().map(Command::Save),
            "/load" => file().map(Command::Load),
            "/exit" | "/quit" | "/bye" => Ok(Command::Exit),
            _unknown => Err(format!("{name} is no command; /help lists them")),
        }
    }
}

fn set(rest: &str) -> Result<Command, String> {
    let Some((name, value)) = rest.split_once(char::is_whitespace) else {
        return Err("/set needs NAME VALUE, as in /set temperature 0.7".to_owned());
    };
    let setting = Setting::named(name)?;
    let value = match value.trim() {
        "default" => Value::Null,
        value => setting.read(value)?,
    };
    Ok(Command::Set {
        name: setting.name,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_become_commands() {
        let set = |name, value| Command::Set { name, value };
        for (line, command) in [
            ("/help", Command::Help),
            (
                "/system be  brief ",
                Command::System(Some("be  brief".to_owned())),
            ),
            ("/system", Command::System(None)),
            ("/set temperature 0.7", set("temperature", json!(0.7))),
            ("/set stop END", set("stop", json!("END"))),
            ("/set stop [\"a\", \"b\"]", set("stop", json!(["a", "b"]))),
            ("/set seed default", set("seed", Value::Null)),
            ("/set", Command::ShowSettings),
            ("/save a b.json", Command::Save("a b.json".into())),
            ("/quit", Command::Exit),
        ] {
            assert_eq!(Command::parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_no_command_says_what_would_be() {
        for (line, words) in [
            ("/hlep", "/help"),
            ("/set temprature 1", "temperature"),
            ("/set seed", "NAME VALUE"),
            ("/set temperature hot", "from 0 to 2"),
            ("/save", "FILE"),
        ] {
            let error = Command::parse(line).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn every_name_is_known_and_explained() {
        for name in NAMES {
            assert!(!Command::parse(&format!("{name} x")).is_err_and(|error| error.contains("no command")));
            assert!(HELP.contains(name), "{name}");
        }
    }
}
