//! One streamed completion, with the times at which its parts arrived.

use crate::client::endpoint::Endpoint;
use crate::client::events::Events;
use anyhow::{Context, bail};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// A completion that ran to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// From sending the request to the first token.
    pub first_token: Duration,
    /// From sending the request to the last token.
    pub last_token: Duration,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
}

impl Outcome {
    /// Time for each token after the first; `None` when there was only one.
    pub fn per_token(&self) -> Option<Duration> {
        let further = u32::try_from(self.output_tokens.checked_sub(1)?).ok()?;
        (self.last_token - self.first_token).checked_div(further)
    }
}

/// Sends `body`, a completion request with `stream` and `include_usage`, and reads the answer to its end.
///
/// # Errors
/// When the server cannot be reached, answers with an error, or ends the stream without usage.
pub async fn complete(endpoint: &Endpoint, body: String) -> anyhow::Result<Outcome> {
    let sent = Instant::now();
    let response = endpoint.post("/v1/completions", body).await?;
    let mut events = Events::of(response.into_body());
    let mut record = Record::default();
    while let Some(data) = events.next().await? {
        record.event(Instant::now(), &data)?;
    }
    record.outcome(sent)
}

/// What a stream has brought so far.
#[derive(Default)]
struct Record {
    first: Option<Instant>,
    last: Option<Instant>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<serde::de::IgnoredAny>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize, Clone, Copy)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Record {
    fn event(&mut self, now: Instant, data: &[u8]) -> anyhow::Result<()> {
        let chunk: Chunk = serde_json::from_slice(data).context("an event that is no completion")?;
        if let Some(error) = chunk.error {
            bail!("{error}");
        }
        if !chunk.choices.is_empty() {
            self.first.get_or_insert(now);
            self.last = Some(now);
        }
        self.usage = chunk.usage.or(self.usage);
        Ok(())
    }

    fn outcome(self, sent: Instant) -> anyhow::Result<Outcome> {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            bail!("a stream without a token")
        };
        let usage = self
            .usage
            .context("a stream without usage: it was cut, or the server sends none")?;
        Ok(Outcome {
            first_token: first - sent,
            last_token: last - sent,
            prompt_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_timed_from_its_first_to_its_last_choice() {
        let sent = Instant::now();
        let at = |millis| sent + Duration::from_millis(millis);
        let mut record = Record::default();
        record.event(at(30), br#"{"choices":[{"text":"a"}]}"#).unwrap();
        record
            .event(at(70), br#"{"choices":[{"text":"b"}],"usage":null}"#)
            .unwrap();
        let usage = br#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
        record.event(at(90), usage).unwrap();
        let outcome = record.outcome(sent).unwrap();
        assert_eq!(outcome.first_token, Duration::from_millis(30));
        assert_eq!(outcome.per_token(), Some(Duration::from_millis(20)));
        assert_eq!((outcome.prompt_tokens, outcome.output_tokens), (7, 3));
    }

    #[test]
    fn an_error_inside_a_stream_and_a_cut_stream_are_failures() {
        let now = Instant::now();
        let mut record = Record::default();
        assert!(record.event(now, br#"{"error":{"message":"no"}}"#).is_err());
        record.event(now, br#"{"choices":[{"text":"a"}]}"#).unwrap();
        assert!(record.outcome(now).is_err());
    }
}
