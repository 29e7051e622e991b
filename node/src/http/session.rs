//! A running request: events of the gateway become fragments of its choices.

use super::choice::{Choice, FinishReason, Fragment};
use super::dialect::{Dialect, Logprobs, WholeChoice};
use super::edge::{Caller, ShowTiming};
use super::error::ApiError;
use super::extras::Extras;
use super::request::ServiceTier;
use super::telemetry::RequestWatch;
use super::timing::Times;
use super::usage::Usage;
use crate::gateway::{Event, Generation, ServedModel, StreamEvent};
use proto::engine::TokenScore;
use proto::request::Finish;
use proto::{Position, RequestId, Span};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Events taken at once, so that a burst is written to the socket together.
const EVENTS_AT_ONCE: usize = 64;

/// What an answer shows beside its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    pub logprobs: Logprobs,
    pub extras: Extras,
    pub reasoning: ReasoningText,
}

/// What the model thinks before its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReasoningText {
    Hidden,
    Shown,
}

/// What all parts of an answer have in common.
pub struct Envelope {
    pub dialect: Dialect,
    pub model: Arc<ServedModel>,
    pub logprobs: Logprobs,
    pub extras: Extras,
    pub request: RequestId,
    reasoning: ReasoningText,
    arrived: Instant,
    show_timing: ShowTiming,
    created_secs: u64,
    tier: Option<ServiceTier>,
    /// The field that asked for the form of the answer.
    form_field: Option<&'static str>,
}

impl Envelope {
    pub fn new(
        dialect: Dialect,
        model: Arc<ServedModel>,
        shown: Shown,
        caller: Caller,
        tier: Option<ServiceTier>,
        form_field: Option<&'static str>,
    ) -> Envelope {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created_secs = since_1970.as_secs();
        Envelope {
            dialect,
            model,
            logprobs: shown.logprobs,
            extras: shown.extras,
            reasoning: shown.reasoning,
            request: caller.told_request(),
            arrived: caller.arrived,
            show_timing: caller.timing,
            created_secs,
            tier,
            form_field,
        }
    }

    fn whole(&self, choices: Vec<Value>, usage: Usage) -> Value {
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

    /// What the client wants to see of it.
    fn shown(&self, mut fragment: Fragment) -> Fragment {
        match self.reasoning {
            ReasoningText::Hidden => fragment.reasoning.clear(),
            ReasoningText::Shown => {}
        }
        fragment
    }

    fn whole_choice(&self, index: u32, choice: &WholeChoice) -> Value {
        self.dialect
            .whole_choice(index, choice, self.logprobs, self.model.text.vocabulary())
    }

    /// One for each chunk; what goes with the tokens is in the first.
    pub fn parts(&self, index: u32, fragment: &Fragment) -> Vec<Value> {
        let vocabulary = self.model.text.vocabulary();
        let mut parts = self.dialect.parts(index, fragment, self.logprobs, vocabulary);
        if let Some(first) = parts.first_mut() {
            self.extras.add_to_part(first, fragment);
        }
        parts
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
        if let Some(tier) = self.tier {
            page.insert("service_tier".into(), json!(tier.name()));
        }
        page
    }
}

/// News of one choice.
pub struct News {
    pub choice: u32,
    pub what: What,
    /// Of the request up to here, however much more has been computed since.
    pub usage: Usage,
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
    usage: Usage,
    times: Times,
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
        let prompts = choices.iter().map(|choice| choice.prompt().len() as u64);
        let watch = RequestWatch::new(&envelope.model.name, prompts, prompt_tokens);
        let running = choices.len();
        let times = Times::new(envelope.arrived, running);
        Session {
            times,
            envelope,
            generation,
            choices,
            choices_per_prompt,
            usage: Usage {
                prompt_tokens,
                ..Usage::default()
            },
            running,
            watch,
        }
    }

    /// The answer in one piece, from what its choices have said.
    pub fn whole(&self, answers: &[WholeChoice]) -> Value {
        let choices = answers
            .iter()
            .zip(0..)
            .map(|(answer, index)| self.envelope.whole_choice(index, answer));
        let mut page = self.envelope.whole(choices.collect(), self.usage());
        let Envelope {
            extras,
            dialect,
            model,
            ..
        } = &self.envelope;
        extras.add_to_whole(
            *dialect,
            &mut page,
            answers,
            &self.choices,
            model.text.vocabulary(),
        );
        if let Some(timing) = self.timing() {
            page["timing"] = timing;
        }
        page
    }

    /// Where the time has gone, where the client asks for it.
    pub fn timing(&self) -> Option<Value> {
        match self.envelope.show_timing {
            ShowTiming::Yes => Some(self.times.split(Instant::now())),
            ShowTiming::No => None,
        }
    }

    /// The ids of a choice's prompt, where they were asked for.
    pub fn prompt_ids(&self, choice: u32) -> Option<Value> {
        self.envelope.extras.prompt_ids(&self.choices[choice as usize])
    }

    pub fn choices(&self) -> usize {
        self.choices.len()
    }

    pub fn usage(&self) -> Usage {
        self.usage
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
            self.watch.failed();
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
                news.push(self.news(choice, What::Opened));
            }
            Event::PromptScores(scores) => self.choices[choice as usize].add_prompt_scores(scores),
            Event::Token { position, id, score } => {
                self.tell_echo(choice, news);
                let fragment = self.token(choice, position, id, score);
                news.push(self.said(choice, fragment));
            }
            Event::Timing(timing) => self.times.told(choice, timing),
            Event::Finished(finish) => {
                let reason = FinishReason::try_from(finish);
                let reason = reason.map_err(|finish| no_answer(finish, self.envelope.form_field))?;
                self.tell_echo(choice, news);
                let fragment = self.choices[choice as usize].end(reason);
                self.count_end(choice, &fragment);
                news.push(self.said(choice, fragment));
            }
            Event::Failed(failure) => return Err(failure.into()),
        }
        Ok(())
    }

    /// Once for each prompt, by its first choice: the others find what that one computed.
    fn count_cached(&mut self, choice: u32, cached_tokens: u32) {
        if choice.is_multiple_of(self.choices_per_prompt) {
            self.usage.cached_tokens += u64::from(cached_tokens);
        }
    }

    fn tell_echo(&mut self, choice: u32, news: &mut Vec<News>) {
        if let Some(echo) = self.choices[choice as usize].take_echo(&self.envelope.model.text) {
            news.push(self.said(choice, echo));
        }
    }

    fn said(&self, choice: u32, fragment: Fragment) -> News {
        self.news(choice, What::Fragment(self.envelope.shown(fragment)))
    }

    fn news(&self, choice: u32, what: What) -> News {
        News {
            choice,
            what,
            usage: self.usage,
        }
    }

    fn token(&mut self, choice: u32, position: Position, id: u32, score: Option<TokenScore>) -> Fragment {
        let now = Instant::now();
        self.watch.token(choice, now);
        self.times.token(choice, now);
        let taker = &mut self.choices[choice as usize];
        let reasoning_before = taker.reasoning_tokens();
        let fragment = taker.push(position, id, score);
        self.usage.completion_tokens += 1;
        self.usage.reasoning_tokens += u64::from(taker.reasoning_tokens() - reasoning_before);
        if fragment.finish.is_some() {
            self.generation.control.end(choice);
            self.times.cut(choice, now);
            self.count_end(choice, &fragment);
        }
        fragment
    }

    fn count_end(&mut self, choice: u32, fragment: &Fragment) {
        if let Some(reason) = fragment.finish {
            self.running -= 1;
            self.watch.finished(choice, reason, self.times.of_choice(choice));
        }
    }
}

fn no_answer(finish: Finish, form_field: Option<&str>) -> ApiError {
    let message = match finish {
        Finish::Expired => "the time for this request has passed",
        Finish::Cancelled => "the request was cancelled",
        Finish::GrammarTooCostly => {
            let error = ApiError::bad_grammar("its grammar takes more computing than one request may use");
            return form_field.map_or(error.clone(), |field| error.about(field));
        }
        Finish::Failed | Finish::Stop | Finish::Length => {
            return ApiError::internal("this request could not be computed");
        }
    };
    ApiError::unavailable(message, Span::from_secs(1))
}
