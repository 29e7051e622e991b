//! The parts of a request as spans: waiting, prompt, output.
//!
//! How long waiting and prompt took is the engine's word, by its own clock; when they were follows from the first token,
//! which is seen here.

use super::spans::{self, Attribute};
use super::trace::{self, Trace};
use proto::engine::Timing;
use std::time::{Duration, Instant, SystemTime};

/// Begins when the request is admitted.
pub struct Parts {
    trace: Trace,
    admitted: SystemTime,
    /// The same moment, for differences.
    since: Instant,
}

/// What a request came to.
pub struct Tale<'a> {
    pub model: &'a str,
    pub prompt_tokens: u64,
    pub generated_tokens: u64,
    /// Of the first choice that has one.
    pub first_token: Option<Instant>,
    pub last_token: Option<Instant>,
    /// Of the first choice that ended; `None`: none did.
    pub timing: Option<Timing>,
}

impl Parts {
    /// `None`: the request that this task handles is not traced.
    pub fn begin() -> Option<Parts> {
        trace::current().map(|trace| Parts {
            trace,
            admitted: SystemTime::now(),
            since: Instant::now(),
        })
    }

    pub fn tell(&self, tale: &Tale<'_>) {
        let model = || ("gen_ai.request.model", Attribute::Text(tale.model.to_owned()));
        let first = tale
            .first_token
            .map_or_else(SystemTime::now, |first| self.at(first));
        let start = self.start_of_prompt(first, tale.timing);
        let prompt = ("gen_ai.usage.input_tokens", Attribute::Number(tale.prompt_tokens));
        spans::emit(self.trace.part("queue", self.admitted, start, vec![model()]));
        spans::emit(self.trace.part("prefill", start, first, vec![model(), prompt]));
        if let Some(last) = tale.last_token {
            let output = (
                "gen_ai.usage.output_tokens",
                Attribute::Number(tale.generated_tokens),
            );
            let decode = self
                .trace
                .part("decode", first, self.at(last), vec![model(), output]);
            spans::emit(decode);
        }
    }

    /// Waiting ended as long before the first token as the prompt took. Where no choice ended that is not known, and all
    /// of it is told as computing.
    fn start_of_prompt(&self, first: SystemTime, timing: Option<Timing>) -> SystemTime {
        let prefill = timing.map(|timing| Duration::from_nanos(timing.prefill.0));
        let start = prefill.and_then(|prefill| first.checked_sub(prefill));
        start.map_or(self.admitted, |start| start.max(self.admitted))
    }

    fn at(&self, moment: Instant) -> SystemTime {
        self.admitted + moment.duration_since(self.since)
    }
}
