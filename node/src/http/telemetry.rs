//! Counters and histograms of the HTTP side. `telemetry::request_metrics` says what each name means.

use super::choice::FinishReason;
use crate::telemetry::parts::{Parts, Tale};
use crate::telemetry::recent::FIRST_TOKEN;
use axum::http::StatusCode;
use metrics::{counter, histogram};
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
    for reason in [FinishReason::Stop, FinishReason::Length, FinishReason::ToolCalls] {
        let labels = [
            ("model_name", model.to_string()),
            ("finished_reason", reason.name().to_string()),
        ];
        counter!(REQUEST_SUCCESS, &labels).increment(0);
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

/// Follows an admitted request from admission to its end.
pub struct RequestWatch {
    model: String,
    started: Instant,
    /// For each choice: when its last token came.
    last_tokens: Vec<Option<Instant>>,
    prompt_tokens: u64,
    generated: u64,
    finished: usize,
    first_token: Option<Instant>,
    /// Of the first choice that ended.
    timing: Option<Timing>,
    /// Where the request is traced.
    parts: Option<Parts>,
}

impl RequestWatch {
    pub fn new(model: &str, choices: usize, prompt_tokens: u64) -> RequestWatch {
        counter!(PROMPT_TOKENS, "model_name" => model.to_string()).increment(prompt_tokens);
        RequestWatch {
            model: model.to_string(),
            started: Instant::now(),
            last_tokens: vec![None; choices],
            prompt_tokens,
            generated: 0,
            finished: 0,
            first_token: None,
            timing: None,
            parts: Parts::begin(),
        }
    }

    pub fn token(&mut self, choice: u32, now: Instant) {
        self.generated += 1;
        self.first_token.get_or_insert(now);
        let last = self.last_tokens[choice as usize].replace(now);
        let (name, since) = match last {
            Some(last) => (INTER_TOKEN_LATENCY, last),
            None => {
                FIRST_TOKEN.add(now - self.started);
                (TIME_TO_FIRST_TOKEN, self.started)
            }
        };
        histogram!(name, "model_name" => self.model.clone()).record((now - since).as_secs_f64());
    }

    pub fn finished(&mut self, reason: FinishReason, timing: Timing) {
        self.finished += 1;
        self.timing.get_or_insert(timing);
        let labels = [
            ("model_name", self.model.clone()),
            ("finished_reason", reason.name().to_string()),
        ];
        counter!(REQUEST_SUCCESS, &labels).increment(1);
        for (name, time) in [
            (QUEUE_TIME, timing.queue),
            (PREFILL_TIME, timing.prefill),
            (DECODE_TIME, timing.decode),
        ] {
            histogram!(name, "model_name" => self.model.clone()).record(time.as_secs_f64());
        }
    }
}

impl Drop for RequestWatch {
    /// However the request ended, also by a client that went away.
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        if let Some(parts) = &self.parts {
            parts.tell(&Tale {
                model: &self.model,
                prompt_tokens: self.prompt_tokens,
                generated_tokens: self.generated,
                first_token: self.first_token,
                last_token: self.last_tokens.iter().copied().flatten().max(),
                timing: self.timing,
            });
        }
        counter!(GENERATION_TOKENS, "model_name" => self.model.clone()).increment(self.generated);
        for (name, value) in [
            (REQUEST_LATENCY, elapsed.as_secs_f64()),
            (REQUEST_PROMPT_TOKENS, self.prompt_tokens as f64),
            (REQUEST_GENERATION_TOKENS, self.generated as f64),
        ] {
            histogram!(name, "model_name" => self.model.clone()).record(value);
        }
        tracing::info!(
            model = self.model,
            prompt_tokens = self.prompt_tokens,
            generated_tokens = self.generated,
            choices = self.last_tokens.len(),
            choices_finished = self.finished,
            millis = elapsed.as_millis() as u64,
            "request ended"
        );
    }
}
