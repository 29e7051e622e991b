//! The line being typed: history, completion of commands, messages of several lines.

use super::command::NAMES;
use super::setting::SETTINGS;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};
use std::path::PathBuf;

const BLOCK: &str = "\"\"\"";
const HISTORY_LINES_MAX: usize = 1000;

pub struct Lines {
    editor: Editor<Assistant, FileHistory>,
    /// `None`: history ends with the program.
    history: Option<PathBuf>,
}

pub enum Line {
    Text(String),
    /// Ctrl-C while typing.
    Dropped,
    /// Ctrl-D.
    End,
}

impl Lines {
    pub fn new(history: Option<PathBuf>) -> anyhow::Result<Lines> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES_MAX)?
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Assistant));
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        Ok(Lines { editor, history })
    }

    pub fn next(&mut self) -> anyhow::Result<Line> {
        match self.editor.readline("> ") {
            Ok(typed) => {
                self.remember(&typed);
                Ok(Line::Text(message(&typed)))
            }
            Err(ReadlineError::Interrupted) => Ok(Line::Dropped),
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(error) => Err(error.into()),
        }
    }

    /// A history that cannot be written is no reason to stop.
    fn remember(&mut self, typed: &str) {
        let _ = self.editor.add_history_entry(typed);
        if let Some(path) = &self.history {
            let _ = self.editor.append_history(path);
        }
    }
}

struct Assistant;

impl Helper for Assistant {}
impl Highlighter for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match goes_on(context.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, place: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(completions(&line[..place]))
    }
}

/// Where the completed word begins, and what it could be.
fn completions(typed: &str) -> (usize, Vec<String>) {
    let (start, words): (usize, Vec<&str>) = match typed.strip_prefix("/set ") {
        Some(_) => (
            "/set ".len(),
            SETTINGS.iter().map(|setting| setting.name).collect(),
        ),
        None if typed.starts_with('/') => (0, NAMES.to_vec()),
        None => (0, Vec::new()),
    };
    let fits = words.iter().filter(|word| word.starts_with(&typed[start..]));
    (start, fits.map(|word| format!("{word} ")).collect())
}

fn goes_on(typed: &str) -> bool {
    match typed.trim_start().strip_prefix(BLOCK) {
        Some(block) => !block.contains(BLOCK),
        None => typed.ends_with('\\'),
    }
}

/// What was meant by what was typed.
fn message(typed: &str) -> String {
    let typed = typed.trim();
    match typed.strip_prefix(BLOCK) {
        Some(block) => block.replacen(BLOCK, "", 1).trim().to_owned(),
        None => typed.replace("\\\n", "\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_it_says() {
        for (typed, on) in [
            ("one line", false),
            ("and \\", true),
            ("and \\\nmore", false),
            ("\"\"\"a\nb", true),
            ("\"\"\"a\nb\"\"\"", false),
        ] {
            assert_eq!(goes_on(typed), on, "{typed}");
        }
        assert_eq!(message("and \\\nmore"), "and \nmore");
        assert_eq!(message("\"\"\"\na\n  b\n\"\"\""), "a\n  b");
    }

    #[test]
    fn commands_and_settings_complete_themselves() {
        assert_eq!(completions("/re"), (0, vec!["/reset ".into(), "/retry ".into()]));
        assert_eq!(completions("/set temp"), (5, vec!["temperature ".into()]));
        assert_eq!(completions("re").1, Vec::<String>::new());
    }
}
