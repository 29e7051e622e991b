//! An answer as server-sent events.

use super::choice::{FinishReason, Fragment};
use super::common::UsageChunks;
use super::dialect::{Dialect, Logprobs};
use super::extras::TokenIds;
use super::session::{News, Session, What};
use super::usage::Usage;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use proto::{Position, RequestId};
use serde_json::Value;
use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The head goes out at once; the body follows as the session has news. The session ends with the body, so a client
/// that goes away cancels its request.
pub fn streamed(session: Session, usage: UsageChunks, keep_alive: Duration) -> Response {
    let resumable = match session.choices() {
        1 => Some(Resumable {
            request: session.envelope.request,
        }),
        _several => None,
    };
    let writer = Writer {
        open: session.choices(),
        used: session.usage(),
        session,
        usage,
        keep_alive,
        state: State::Running,
    };
    let frames = stream::unfold(writer, |mut writer| async move {
        let frame = writer.next_frame().await?;
        Some((Ok::<Bytes, Infallible>(frame), writer))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // nginx would otherwise collect the stream before it passes it on.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = (headers, Body::from_stream(frames)).into_response();
    if let Some(resumable) = resumable {
        response.extensions_mut().insert(resumable);
    }
    response
}

/// Marks a response whose events, all of one choice, can be told from any place on.
#[derive(Clone, Copy, Debug)]
pub struct Resumable {
    /// As its events name it.
    pub request: RequestId,
}

struct Writer {
    session: Session,
    /// Choices whose end has not been written.
    open: usize,
    usage: UsageChunks,
    /// Of what is written, however much more has come since.
    used: Usage,
    keep_alive: Duration,
    state: State,
}

enum State {
    Running,
    Ended,
}

impl Writer {
    async fn next_frame(&mut self) -> Option<Bytes> {
        // Of the socket: what comes and is not shown, such as hidden reasoning, is silence too.
        let silent_until = Instant::now() + self.keep_alive;
        loop {
            if matches!(self.state, State::Ended) {
                return None;
            }
            let mut page = String::new();
            match timeout_at(silent_until, self.session.next()).await {
                Err(_silence) => page.push_str(": keep-alive\n\n"),
                Ok(Some(Ok(news))) => news.into_iter().for_each(|news| self.write_news(news, &mut page)),
                Ok(Some(Err(error))) => {
                    write_event(&mut page, &error.body());
                    self.state = State::Ended;
                }
                Ok(None) => {
                    self.write_end(&mut page);
                    self.state = State::Ended;
                }
            }
            if !page.is_empty() {
                return Some(page.into());
            }
        }
    }

    fn write_news(&mut self, News { choice, what, usage }: News, page: &mut String) {
        self.used = usage;
        match what {
            What::Opened => self.write_opening(choice, page),
            What::Fragment(fragment) => self.write_fragment(choice, &fragment, page),
        }
    }

    /// The prompt's token ids, where they are wanted, come with the first chunk: in chats, which have one prompt,
    /// beside the choices.
    fn write_opening(&self, choice: u32, page: &mut String) {
        let dialect = self.session.envelope.dialect;
        let chunk = match (dialect, dialect.opening(choice), self.session.prompt_ids(choice)) {
            (Dialect::Chat, Some(opening), Some(ids)) => {
                let mut chunk = self.chunk(opening);
                chunk["prompt_token_ids"] = ids;
                chunk
            }
            (Dialect::Completion, None, Some(ids)) => {
                let nothing = Fragment::default();
                let mut opening = self.session.envelope.parts(choice, &nothing).remove(0);
                opening["prompt_token_ids"] = ids;
                self.chunk(opening)
            }
            (_, Some(opening), _) => self.chunk(opening),
            (_, None, _) => return,
        };
        write_event(page, &chunk);
    }

    fn write_fragment(&mut self, choice: u32, fragment: &Fragment, page: &mut String) {
        if self.says_something(fragment) {
            let mut parts = self.session.envelope.parts(choice, fragment);
            let last = parts.pop();
            for part in parts {
                write_event(page, &self.chunk(part));
            }
            // Whoever has seen the position has seen all of the token.
            if let Some(position) = fragment.position {
                self.write_id(choice, position, page);
            }
            if let Some(last) = last {
                write_event(page, &self.chunk(last));
            }
        }
        if let Some(finish) = fragment.finish {
            self.write_closing(choice, finish, page);
        }
    }

    /// The last of all tells where the time has gone, where that is wanted.
    fn write_closing(&mut self, choice: u32, finish: FinishReason, page: &mut String) {
        self.open -= 1;
        let mut chunk = self.chunk(self.session.envelope.dialect.closing(choice, finish));
        if self.open == 0
            && let Some(timing) = self.session.timing()
        {
            chunk["timing"] = timing;
        }
        write_event(page, &chunk);
    }

    /// Text may be held back while its token's id or log-probabilities go out.
    fn says_something(&self, fragment: &Fragment) -> bool {
        let has_words =
            !fragment.text.is_empty() || !fragment.reasoning.is_empty() || !fragment.calls.is_empty();
        let envelope = &self.session.envelope;
        match (envelope.logprobs, envelope.extras.token_ids) {
            (Logprobs::Hidden, TokenIds::Hidden) => has_words,
            (Logprobs::Shown(_), _) | (_, TokenIds::Shown) => has_words || !fragment.tokens.is_empty(),
        }
    }

    fn write_id(&self, choice: u32, position: Position, page: &mut String) {
        let request = self.session.envelope.request;
        writeln!(page, "id: {request}:{choice}:{position}").expect("a String takes everything");
    }

    fn chunk(&self, choice: Value) -> Value {
        let usage = match self.usage {
            UsageChunks::Never => None,
            UsageChunks::AtEnd => Some(Value::Null),
            UsageChunks::OnEveryChoice | UsageChunks::OnEveryChoiceAndAtEnd => Some(self.used.json()),
        };
        self.session.envelope.chunk(vec![choice], usage)
    }

    fn write_end(&self, page: &mut String) {
        match self.usage {
            UsageChunks::Never | UsageChunks::OnEveryChoice => {}
            UsageChunks::AtEnd | UsageChunks::OnEveryChoiceAndAtEnd => {
                let usage = self.session.usage().json();
                write_event(page, &self.session.envelope.chunk(Vec::new(), Some(usage)));
            }
        }
        page.push_str("data: [DONE]\n\n");
    }
}

fn write_event(page: &mut String, data: &Value) {
    // Display of a JSON value has no line breaks, so one `data:` line holds it.
    write!(page, "data: {data}\n\n").expect("a String takes everything");
}
