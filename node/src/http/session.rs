//! A running request: events of the gateway become fragments of its choices.

use super::choice::{Choice, FinishReason, Fragment};
use super::dialect::{Dialect, Logprobs, WholeChoice};
use super::edge::Caller;
use super::error::ApiError;
use super::telemetry::RequestWatch;
use super::usage::Usage;
use crate::gateway::{Event, Generation, ServedModel, StreamEvent};
use proto::engine::TokenScore;
use proto::request::Finish;
use proto::{Position, RequestId, Span};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Events taken at once, so that a burst is written to the socket together.
const EVENTS_AT_ONCE: usize = 64;

/// What all parts of an answer have in common.
pub struct Envelope {
    pub dialect: Dialect,
    pub model: Arc<ServedModel>,
    pub logprobs: Logprobs,
    pub request: RequestId,
    created_secs: u64,
    tier: Option<String>,
}

impl Envelope {
    pub fn new(
        dialect: Dialect,
        model: Arc<ServedModel>,
        logprobs: Logprobs,
        caller: Caller,
        tier: Option<String>,
    ) -> Envelope {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created_secs = since_1970.as_secs();
        Envelope {
            dialect,
            model,
            logprobs,
            request: caller.request,
            created_secs,
            tier,
        }
    }

    pub fn whole(&self, choices: Vec<Value>, usage: Usage) -> Value {
        let mut page = self.page(self.dialect.whole_object(), choices);
        page.insert("usage".into(), usage.json());
        Value::Object(page)
    }

    /// `usage`: `None` leaves the field out.
    pub fn chunk(&self, choices: Vec<Value>, usage: Option<Value>) -> Value {
        let mut page = self.page(self.dialect.chunk_object(), choices);
        if let Some(usage) = usage {
            page.insert("usage".into(), usage);
        }
        Value::Object(page)
    }

    pub fn whole_choice(&self, index: u32, choice: &WholeChoice) -> Value {
        self.dialect
            .whole_choice(index, choice, self.logprobs, self.model.text.vocabulary())
    }

    pub fn part(&self, index: u32, fragment: &Fragment) -> Value {
        self.dialect
            .part(index, fragment, self.logprobs, self.model.text.vocabulary())
    }

    fn page(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let mut page = Map::new();
        page.insert(
            "id".into(),
            json!(format!("{}{}", self.dialect.id_prefix(), self.request)),
        );
        page.insert("object".into(), json!(object));
        page.insert("created".into(), json!(self.created_secs));
        page.insert("model".into(), json!(self.model.name));
        page.insert("choices".into(), Value::Array(choices));
        if let Some(tier) = &self.tier {
            page.insert("service_tier".into(), json!(tier));
        }
        page
    }
}

/// News of one choice.
pub struct News {
    pub choice: u32,
    pub what: What,
}

pub enum What {
    /// The choice has begun.
    Opened,
    Fragment(Fragment),
}

/// Dropping it cancels what still runs.
pub struct Session {
    pub envelope: Envelope,
    generation: Generation,
    choices: Vec<Choice>,
    choices_per_prompt: u32,
    prompt_tokens: u64,
    cached_tokens: u64,
    /// Choices that have not ended; 0 also after an error.
    running: usize,
    watch: RequestWatch,
}

impl Session {
    pub fn new(
        envelope: Envelope,
        generation: Generation,
        choices: Vec<Choice>,
        choices_per_prompt: u32,
        prompt_tokens: u64,
    ) -> Session {
        let watch = RequestWatch::new(&envelope.model.name, choices.len(), prompt_tokens);
        let running = choices.len();
        Session {
            envelope,
            generation,
            choices,
            choices_per_prompt,
            prompt_tokens,
            cached_tokens: 0,
            running,
            watch,
        }
    }

    pub fn choices(&self) -> usize {
        self.choices.len()
    }

    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.choices.iter().map(|choice| u64::from(choice.tokens())).sum(),
            cached_tokens: self.cached_tokens,
        }
    }

    /// The next news, in order for each choice; `None` when every choice has ended or an error was told. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Vec<News>, ApiError>> {
        if self.running == 0 {
            return None;
        }
        let mut events = Vec::new();
        let count = self
            .generation
            .events
            .recv_many(&mut events, EVENTS_AT_ONCE)
            .await;
        let taken = match count {
            0 => Err(ApiError::unavailable(
                "the answer broke off; try again",
                Span::from_secs(1),
            )),
            _some => self.take(events),
        };
        if taken.is_err() {
            self.running = 0;
        }
        Some(taken)
    }

    fn take(&mut self, events: Vec<StreamEvent>) -> Result<Vec<News>, ApiError> {
        let mut news = Vec::with_capacity(events.len());
        for event in events {
            self.take_one(event, &mut news)?;
        }
        Ok(news)
    }

    fn take_one(&mut self, event: StreamEvent, news: &mut Vec<News>) -> Result<(), ApiError> {
        let StreamEvent { choice, event } = event;
        if self.choices[choice as usize].finish_reason().is_some() {
            // A stop string ended it here; the engine had not heard of that yet.
            return Ok(());
        }
        match event {
            Event::Started { cached_tokens } => {
                self.count_cached(choice, cached_tokens);
                news.push(News {
                    choice,
                    what: What::Opened,
                });
            }
            Event::PromptScores(scores) => self.choices[choice as usize].add_prompt_scores(scores),
            Event::Token { position, id, score } => {
                self.tell_echo(choice, news);
                let fragment = self.token(choice, position, id, score);
                news.push(News {
                    choice,
                    what: What::Fragment(fragment),
                });
            }
            Event::Finished(finish) => {
                let reason = FinishReason::try_from(finish).map_err(no_answer)?;
                self.tell_echo(choice, news);
                let fragment = self.choices[choice as usize].end(reason);
                self.count_end(&fragment);
                news.push(News {
                    choice,
                    what: What::Fragment(fragment),
                });
            }
            Event::Failed(failure) => return Err(failure.into()),
        }
        Ok(())
    }

    /// Once for each prompt, by its first choice: the others find what that one computed.
    fn count_cached(&mut self, choice: u32, cached_tokens: u32) {
        if choice.is_multiple_of(self.choices_per_prompt) {
            self.cached_tokens += u64::from(cached_tokens);
        }
    }

    fn tell_echo(&mut self, choice: u32, news: &mut Vec<News>) {
        if let Some(echo) = self.choices[choice as usize].take_echo(&self.envelope.model.text) {
            news.push(News {
                choice,
                what: What::Fragment(echo),
            });
        }
    }

    fn token(&mut self, choice: u32, position: Position, id: u32, score: Option<TokenScore>) -> Fragment {
        self.watch.token(choice);
        let fragment = self.choices[choice as usize].push(position, id, score);
        if fragment.finish.is_some() {
            self.generation.control.end(choice);
            self.count_end(&fragment);
        }
        fragment
    }

    fn count_end(&mut self, fragment: &Fragment) {
        if let Some(reason) = fragment.finish {
            self.running -= 1;
            self.watch.finished(reason);
        }
    }
}

fn no_answer(finish: Finish) -> ApiError {
    let message = match finish {
        Finish::Expired => "the time for this request has passed",
        Finish::Cancelled => "the request was cancelled",
        Finish::Failed | Finish::Stop | Finish::Length => {
            return ApiError::internal("this request could not be computed");
        }
    };
    ApiError::unavailable(message, Span::from_secs(1))
}
