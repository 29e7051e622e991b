//! One answer, from the server to the screen.

use super::conversation::Conversation;
use crate::cli::tell;
use crate::client::endpoint::Endpoint;
use crate::client::events::Events;
use anyhow::Context;
use serde::Deserialize;
use std::time::{Duration, Instant};
use tokio::signal::ctrl_c;

/// Where the answer is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Screen {
    /// By a person: with what the model thinks, without what would command the terminal.
    Terminal,
    /// By a program: the answer alone, as it is.
    Plain,
}

pub struct Answer {
    pub text: String,
    /// What the model thought before it.
    pub thoughts: String,
    pub end: End,
    pub pace: Pace,
}

/// What ended an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Nothing that the server said: a person, or the connection.
    BrokenOff,
    /// The server, with this `finish_reason`.
    Finished(String),
    /// An error, in the server's words; what was told before stands in `text`.
    Failed(String),
}

/// No rate is made of fewer.
const RATED_TOKENS_MIN: u64 = 8;

/// How fast it came.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Pace {
    pub first_token: Option<Duration>,
    pub last_token: Duration,
    pub tokens: u64,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: u64,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
}

/// Prints the answer while it comes. Ctrl-C ends it there, which is no error.
///
/// # Errors
/// When there is no answer at all.
pub async fn ask(endpoint: &Endpoint, conversation: &Conversation, screen: Screen) -> anyhow::Result<Answer> {
    let mut answer = Answer {
        text: String::new(),
        thoughts: String::new(),
        end: End::BrokenOff,
        pace: Pace::default(),
    };
    let mut teller = Teller {
        screen,
        is_thinking: false,
    };
    let taken = match screen {
        Screen::Plain => answer.take_all(endpoint, conversation, &mut teller).await,
        Screen::Terminal => tokio::select! {
            taken = answer.take_all(endpoint, conversation, &mut teller) => taken,
            interrupted = ctrl_c() => interrupted.map_err(anyhow::Error::from),
        },
    };
    // What goes wrong amid an answer is told on a line of its own.
    let is_begun = !answer.text.is_empty() || !answer.thoughts.is_empty();
    if taken.is_ok() || is_begun {
        teller.end();
    }
    taken?;
    Ok(answer)
}

impl Answer {
    async fn take_all(
        &mut self,
        endpoint: &Endpoint,
        conversation: &Conversation,
        teller: &mut Teller,
    ) -> anyhow::Result<()> {
        let sent = Instant::now();
        let body = conversation.request().to_string();
        let response = endpoint.post("/v1/chat/completions", body).await?;
        let mut events = Events::of(response.into_body());
        while let Some(data) = events.next().await? {
            let chunk = serde_json::from_slice(&data).context("an event that is no part of an answer")?;
            self.take(chunk, sent.elapsed(), teller);
        }
        Ok(())
    }

    fn take(&mut self, chunk: Chunk, elapsed: Duration, teller: &mut Teller) {
        for Choice { delta, finish_reason } in chunk.choices {
            if let Some(thought) = delta.reasoning_content.filter(|text| !text.is_empty()) {
                self.pace.token(elapsed);
                teller.thought(&thought);
                self.thoughts.push_str(&thought);
            }
            if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
                self.pace.token(elapsed);
                teller.text(&text);
                self.text.push_str(&text);
            }
            if let Some(reason) = finish_reason {
                self.end = End::Finished(reason);
            }
        }
        if let Some(usage) = chunk.usage {
            self.pace.tokens = usage.completion_tokens;
        }
        if let Some(failure) = chunk.error {
            self.end = End::Failed(failure.message);
        }
    }

    /// Why there is no text to be read, for a person; `None`: there is some, or an error says it.
    pub fn why_no_text(&self) -> Option<String> {
        let because = match &self.end {
            _ if !self.text.is_empty() => return None,
            End::Failed(_) => return None,
            End::BrokenOff => "it was broken off".to_owned(),
            End::Finished(reason) if reason == "length" => {
                "its tokens were used up (max_tokens, or the context)".to_owned()
            }
            End::Finished(reason) => format!("the model ended it (finish_reason {reason})"),
        };
        Some(if self.thoughts.is_empty() {
            format!("the answer has no text: {because}")
        } else {
            format!("the answer ended in its thoughts, before its text began: {because}")
        })
    }

    /// Its stream ended before it said that it would.
    pub fn is_broken_off(&self) -> bool {
        matches!(self.end, End::BrokenOff)
    }

    /// # Errors
    /// What the server said of why it cannot go on.
    pub fn into_end(self) -> anyhow::Result<()> {
        match self.end {
            End::Failed(words) => Err(anyhow::Error::msg(words)),
            End::BrokenOff | End::Finished(_) => Ok(()),
        }
    }
}

impl Pace {
    /// Something came. The server's own count replaces this one at the end.
    fn token(&mut self, elapsed: Duration) {
        self.first_token.get_or_insert(elapsed);
        self.last_token = elapsed;
        self.tokens += 1;
    }

    /// One line for a person; `None`: nothing came.
    pub fn in_words(&self) -> Option<String> {
        let first = self.first_token?;
        let further_secs = (self.last_token - first).as_secs_f64();
        let (tokens, first_millis) = (self.tokens, first.as_millis());
        // A handful that came together tells how they were sent, not how fast they were made.
        Some(if tokens >= RATED_TOKENS_MIN && further_secs > 0.0 {
            let rate = (tokens - 1) as f64 / further_secs;
            format!("{tokens} tokens, {rate:.1} tok/s, first after {first_millis} ms")
        } else {
            let noun = if tokens == 1 { "token" } else { "tokens" };
            format!("{tokens} {noun}, first after {first_millis} ms")
        })
    }
}

struct Teller {
    screen: Screen,
    is_thinking: bool,
}

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

impl Teller {
    fn thought(&mut self, text: &str) {
        if self.screen == Screen::Plain {
            return;
        }
        if !self.is_thinking {
            self.is_thinking = true;
            tell::piece(DIM);
        }
        self.write(text);
    }

    fn text(&mut self, text: &str) {
        self.stop_thinking("\n\n");
        self.write(text);
    }

    fn end(&mut self) {
        self.stop_thinking("");
        tell::piece("\n");
    }

    fn stop_thinking(&mut self, gap: &str) {
        if std::mem::take(&mut self.is_thinking) {
            tell::piece(&format!("{PLAIN}{gap}"));
        }
    }

    fn write(&self, text: &str) {
        match self.screen {
            Screen::Terminal => tell::piece(&harmless(text)),
            Screen::Plain => tell::piece(text),
        }
    }
}

/// Without what a terminal would obey.
fn harmless(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_command_the_terminal() {
        assert_eq!(harmless("a\x1b]0;title\x07b\tc\nd\u{9b}2J"), "a]0;titleb\tc\nd2J");
    }

    fn answer(thoughts: &str, end: End) -> Answer {
        Answer {
            text: String::new(),
            thoughts: thoughts.to_owned(),
            end,
            pace: Pace::default(),
        }
    }

    #[test]
    fn an_answer_without_text_says_what_it_ended_in_and_because_of_what() {
        let finished = |reason: &str| End::Finished(reason.to_owned());
        let thought = answer("Hm", finished("length")).why_no_text().unwrap();
        assert!(
            thought.contains("in its thoughts") && thought.contains("max_tokens"),
            "{thought}"
        );
        let stopped = answer("Hm", End::BrokenOff).why_no_text().unwrap();
        assert!(
            stopped.contains("in its thoughts") && stopped.contains("broken off"),
            "{stopped}"
        );
        let empty = answer("", finished("stop")).why_no_text().unwrap();
        assert!(
            empty.contains("no text") && empty.contains("finish_reason stop"),
            "{empty}"
        );
        assert_eq!(answer("Hm", End::Failed("no".to_owned())).why_no_text(), None);
        let told = Answer {
            text: "Yes.".to_owned(),
            ..answer("Hm", finished("length"))
        };
        assert_eq!(told.why_no_text(), None);
    }

    #[test]
    fn the_pace_counts_from_the_first_token() {
        let pace = Pace {
            first_token: Some(Duration::from_millis(120)),
            last_token: Duration::from_millis(1120),
            tokens: 11,
        };
        assert_eq!(
            pace.in_words().as_deref(),
            Some("11 tokens, 10.0 tok/s, first after 120 ms")
        );
        assert_eq!(Pace::default().in_words(), None);
        let short = Pace { tokens: 3, ..pace };
        assert_eq!(short.in_words().as_deref(), Some("3 tokens, first after 120 ms"));
    }
}
