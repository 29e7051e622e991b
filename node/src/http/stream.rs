//! An answer as server-sent events.

use super::choice::Fragment;
use super::common::UsageChunks;
use super::dialect::Logprobs;
use super::session::{News, Session, What};
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use proto::Position;
use serde_json::Value;
use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

/// The head goes out at once; the body follows as the session has news. The session ends with the body, so a client
/// that goes away cancels its request.
pub fn streamed(session: Session, usage: UsageChunks, keep_alive: Duration) -> Response {
    let writer = Writer {
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
    (headers, Body::from_stream(frames)).into_response()
}

struct Writer {
    session: Session,
    usage: UsageChunks,
    keep_alive: Duration,
    state: State,
}

enum State {
    Running,
    Ended,
}

impl Writer {
    async fn next_frame(&mut self) -> Option<Bytes> {
        loop {
            if matches!(self.state, State::Ended) {
                return None;
            }
            let mut page = String::new();
            match tokio::time::timeout(self.keep_alive, self.session.next()).await {
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

    fn write_news(&self, News { choice, what }: News, page: &mut String) {
        match what {
            What::Opened => {
                if let Some(opening) = self.session.envelope.dialect.opening(choice) {
                    write_event(page, &self.chunk(opening));
                }
            }
            What::Fragment(fragment) => self.write_fragment(choice, &fragment, page),
        }
    }

    fn write_fragment(&self, choice: u32, fragment: &Fragment, page: &mut String) {
        if self.says_something(fragment) {
            if let Some(position) = fragment.position {
                self.write_id(choice, position, page);
            }
            write_event(page, &self.chunk(self.session.envelope.part(choice, fragment)));
        }
        if let Some(finish) = fragment.finish {
            write_event(
                page,
                &self.chunk(self.session.envelope.dialect.closing(choice, finish)),
            );
        }
    }

    /// Text may be held back while its token's log-probabilities go out.
    fn says_something(&self, fragment: &Fragment) -> bool {
        match self.session.envelope.logprobs {
            Logprobs::Hidden => !fragment.text.is_empty(),
            Logprobs::Shown(_) => !fragment.text.is_empty() || !fragment.tokens.is_empty(),
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
            UsageChunks::OnEveryChunk => Some(self.session.usage().json()),
        };
        self.session.envelope.chunk(vec![choice], usage)
    }

    fn write_end(&self, page: &mut String) {
        match self.usage {
            UsageChunks::Never => {}
            UsageChunks::AtEnd | UsageChunks::OnEveryChunk => {
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
