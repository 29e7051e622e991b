//! Counters and histograms of the HTTP side. `telemetry::request_metrics` says what each name means.

use super::choice::FinishReason;
use crate::telemetry::parts::{Parts, Tale};
use crate::telemetry::recent::FIRST_TOKEN;
use axum::http::StatusCode;
use metrics::{Counter, counter, histogram};
use proto::engine::Timing;
use std::time::Instant;

pub const HTTP_REQUESTS: &str = "cluster_http_requests_total";
pub const PROMPT_TOKENS: &str = "cluster_prompt_tokens_total";
pub const GENERATION_TOKENS: &str = "cluster_generation_tokens_total";
pub const REQUEST_SUCCESS: &str = "cluster_request_success_total";
pub const TIME_TO_FIRST_TOKEN: &str = "cluster_time_to_first_token_seconds";
pub const INTER_TOKEN_LATENCY: &str = "cluster_inter_token_latency_seconds";
pub const REQUEST_LATENCY: &str = "cluster_request_latency_seconds";
pub const QUEUE_TIME: &str = "cluster_request_queue_time_seconds";
pub const PREFILL_TIME: &str = "cluster_request_prefill_time_seconds";
pub const DECODE_TIME: &str = "cluster_request_decode_time_seconds";
pub const REQUEST_PROMPT_TOKENS: &str = "cluster_request_prompt_tokens";
pub const REQUEST_GENERATION_TOKENS: &str = "cluster_request_generation_tokens";

/// Counts an answer by its head.
pub fn answered(route: String, status: StatusCode) {
    counter!(HTTP_REQUESTS, "route" => route, "status" => status.as_str().to_string()).increment(1);
}

/// Shows a model's families, as zeros, before its first request: rules of alerting and of scaling look for them.
pub fn introduce(model: &str) {
    for name in [PROMPT_TOKENS, GENERATION_TOKENS] {
        counter!(name, "model_name" => model.to_string()).increment(0);
    }
    let own = [FinishReason::Stop, FinishReason::Length, FinishReason::ToolCalls];
    let others = [Unfinished::Abort, Unfinished::Error];
    for outcome in own
        .map(FinishReason::name)
        .into_iter()
        .chain(others.map(Unfinished::name))
    {
        outcomes(model, outcome).increment(0);
    }
    for name in [
        TIME_TO_FIRST_TOKEN,
        INTER_TOKEN_LATENCY,
        REQUEST_LATENCY,
        QUEUE_TIME,
        PREFILL_TIME,
        DECODE_TIME,
        REQUEST_PROMPT_TOKENS,
        REQUEST_GENERATION_TOKENS,
    ] {
        // Made, and given no value.
        let _ = histogram!(name, "model_name" => model.to_string());
    }
}

/// Choices of a model that had this outcome.
fn outcomes(model: &str, outcome: &str) -> Counter {
    let labels = [
        ("model_name", model.to_string()),
        ("finished_reason", outcome.to_string()),
    ];
    counter!(REQUEST_SUCCESS, &labels)
}

/// How a choice ended that had no end of its own, in vLLM's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unfinished {
    /// The client went away.
    Abort,
    /// It was told an error.
    Error,
}

impl Unfinished {
    fn name(self) -> &'static str {
        match self {
            Unfinished::Abort => "abort",
            Unfinished::Error => "error",
        }
    }
}

/// Follows an admitted request from admission to its end. What is told of its length and time is told of each choice, as
/// vLLM does, so that all counts of outcomes and of ends are the same.
pub struct RequestWatch {
    model: String,
    started: Instant,
    choices: Vec<ChoiceWatch>,
    prompt_tokens: u64,
    /// Of the model.
    generated: Counter,
    finished: usize,
    first_token: Option<Instant>,
    /// Of the first choice that ended.
    timing: Option<Timing>,
    /// What it means for a choice that it has no end of its own.
    unfinished: Unfinished,
    /// Where the request is traced.
    parts: Option<Parts>,
}

struct ChoiceWatch {
    prompt_tokens: u64,
    generated: u64,
    last_token: Option<Instant>,
    ended: bool,
}

impl RequestWatch {
    /// `prompts`: for each choice, how many tokens its prompt has; `prompt_tokens`: of all prompts, each once.
    pub fn new(model: &str, prompts: impl Iterator<Item = u64>, prompt_tokens: u64) -> RequestWatch {
        counter!(PROMPT_TOKENS, "model_name" => model.to_string()).increment(prompt_tokens);
        let choices = prompts.map(|prompt_tokens| ChoiceWatch {
            prompt_tokens,
            generated: 0,
            last_token: None,
            ended: false,
        });
        RequestWatch {
            model: model.to_string(),
            started: Instant::now(),
            choices: choices.collect(),
            prompt_tokens,
            generated: counter!(GENERATION_TOKENS, "model_name" => model.to_string()),
            finished: 0,
            first_token: None,
            timing: None,
            unfinished: Unfinished::Abort,
            parts: Parts::begin(),
        }
    }

    pub fn token(&mut self, choice: u32, now: Instant) {
        // At once, so that rates are those at which tokens come and not those at which requests end.
        self.generated.increment(1);
        self.first_token.get_or_insert(now);
        let choice = &mut self.choices[choice as usize];
        choice.generated += 1;
        let (name, since) = match choice.last_token.replace(now) {
            Some(last) => (INTER_TOKEN_LATENCY, last),
            None => {
                FIRST_TOKEN.add(now - self.started);
                (TIME_TO_FIRST_TOKEN, self.started)
            }
        };
        self.record(name, (now - since).as_secs_f64());
    }

    pub fn finished(&mut self, choice: u32, reason: FinishReason, timing: Timing) {
        self.finished += 1;
        self.timing.get_or_insert(timing);
        for (name, time) in [
            (QUEUE_TIME, timing.queue),
            (PREFILL_TIME, timing.prefill),
            (DECODE_TIME, timing.decode),
        ] {
            self.record(name, time.as_secs_f64());
        }
        self.end(choice as usize, reason.name());
    }

    /// The client is told an error in place of what is missing.
    pub fn failed(&mut self) {
        self.unfinished = Unfinished::Error;
    }

    fn end(&mut self, choice: usize, outcome: &str) {
        outcomes(&self.model, outcome).increment(1);
        let choice = &mut self.choices[choice];
        choice.ended = true;
        let (prompt_tokens, generated) = (choice.prompt_tokens as f64, choice.generated as f64);
        self.record(REQUEST_LATENCY, self.started.elapsed().as_secs_f64());
        self.record(REQUEST_PROMPT_TOKENS, prompt_tokens);
        self.record(REQUEST_GENERATION_TOKENS, generated);
    }

    fn record(&self, name: &'static str, value: f64) {
        histogram!(name, "model_name" => self.model.clone()).record(value);
    }
}

impl Drop for RequestWatch {
    /// However the request ended, also by a client that went away.
    fn drop(&mut self) {
        for choice in 0..self.choices.len() {
            if !self.choices[choice].ended {
                self.end(choice, self.unfinished.name());
            }
        }
        let generated = self.choices.iter().map(|choice| choice.generated).sum();
        if let Some(parts) = &self.parts {
            parts.tell(&Tale {
                model: &self.model,
                prompt_tokens: self.prompt_tokens,
                generated_tokens: generated,
                first_token: self.first_token,
                last_token: self.choices.iter().filter_map(|choice| choice.last_token).max(),
                timing: self.timing,
            });
        }
        tracing::info!(
            model = self.model,
            prompt_tokens = self.prompt_tokens,
            generated_tokens = generated,
            choices = self.choices.len(),
            choices_finished = self.finished,
            millis = self.started.elapsed().as_millis() as u64,
            "request ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

    /// What `events` make of the page of a model `m`.
    fn page_after(events: impl FnOnce(&PrometheusHandle)) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || events(&handle));
        handle.render()
    }

    #[track_caller]
    fn shows(page: &str, line: &str) {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is missing in {page}"
        );
    }

    fn two_choices() -> RequestWatch {
        RequestWatch::new("m", [5, 5].into_iter(), 5)
    }

    #[test]
    fn tokens_are_counted_while_they_come() {
        let page = page_after(|handle| {
            let mut watch = two_choices();
            watch.token(0, Instant::now());
            watch.token(1, Instant::now());
            shows(
                &handle.render(),
                r#"cluster_generation_tokens_total{model_name="m"} 2"#,
            );
            watch.token(0, Instant::now());
        });
        shows(&page, r#"cluster_generation_tokens_total{model_name="m"} 3"#);
    }

    #[test]
    fn every_choice_has_one_outcome_one_latency_and_its_lengths() {
        let page = page_after(|_| {
            let mut left = two_choices();
            left.token(0, Instant::now());
            left.finished(0, FinishReason::Length, Timing::default());
            drop(left);
            let mut failed = two_choices();
            failed.failed();
        });
        let outcomes = |reason: &str, count: u32| {
            let name = r#"cluster_request_success_total{model_name="m",finished_reason="#;
            shows(&page, &format!("{name}\"{reason}\"}} {count}"));
        };
        outcomes("length", 1);
        outcomes("abort", 1);
        outcomes("error", 2);
        shows(
            &page,
            r#"cluster_request_latency_seconds_count{model_name="m"} 4"#,
        );
        shows(&page, r#"cluster_request_prompt_tokens_sum{model_name="m"} 20"#);
        shows(
            &page,
            r#"cluster_request_generation_tokens_count{model_name="m"} 4"#,
        );
        shows(
            &page,
            r#"cluster_request_generation_tokens_sum{model_name="m"} 1"#,
        );
        shows(&page, r#"cluster_prompt_tokens_total{model_name="m"} 10"#);
    }
}
