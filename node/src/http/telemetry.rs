//! Counters and histograms of the HTTP side, under the names that dashboards made for vLLM read.

use super::choice::FinishReason;
use axum::http::StatusCode;
use metrics::{counter, histogram};
use std::time::Instant;

const TIME_TO_FIRST_TOKEN: &str = "vllm:time_to_first_token_seconds";
const INTER_TOKEN_LATENCY: &str = "vllm:inter_token_latency_seconds";
const REQUEST_LATENCY: &str = "vllm:e2e_request_latency_seconds";

/// Bucket bounds, in seconds, for whoever installs the recorder.
pub const BUCKETS: [(&str, &[f64]); 3] = [
    (
        TIME_TO_FIRST_TOKEN,
        &[
            0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
            80.0,
        ],
    ),
    (
        INTER_TOKEN_LATENCY,
        &[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
            5.0,
        ],
    ),
    (
        REQUEST_LATENCY,
        &[
            0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
            240.0,
        ],
    ),
];

/// Counts an answer by its head.
pub fn answered(route: String, status: StatusCode) {
    counter!("cluster_http_requests_total", "route" => route, "status" => status.as_str().to_string())
        .increment(1);
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
}

impl RequestWatch {
    pub fn new(model: &str, choices: usize, prompt_tokens: u64) -> RequestWatch {
        counter!("vllm:prompt_tokens_total", "model_name" => model.to_string()).increment(prompt_tokens);
        RequestWatch {
            model: model.to_string(),
            started: Instant::now(),
            last_tokens: vec![None; choices],
            prompt_tokens,
            generated: 0,
            finished: 0,
        }
    }

    pub fn token(&mut self, choice: u32) {
        let now = Instant::now();
        self.generated += 1;
        let last = self.last_tokens[choice as usize].replace(now);
        let (name, since) = match last {
            Some(last) => (INTER_TOKEN_LATENCY, last),
            None => (TIME_TO_FIRST_TOKEN, self.started),
        };
        histogram!(name, "model_name" => self.model.clone()).record((now - since).as_secs_f64());
    }

    pub fn finished(&mut self, reason: FinishReason) {
        self.finished += 1;
        let labels = [
            ("model_name", self.model.clone()),
            ("finished_reason", reason.name().to_string()),
        ];
        counter!("vllm:request_success_total", &labels).increment(1);
    }
}

impl Drop for RequestWatch {
    /// However the request ended, also by a client that went away.
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        counter!("vllm:generation_tokens_total", "model_name" => self.model.clone())
            .increment(self.generated);
        histogram!(REQUEST_LATENCY, "model_name" => self.model.clone()).record(elapsed.as_secs_f64());
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
