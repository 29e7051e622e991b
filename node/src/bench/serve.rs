//! `cluster bench serve`: keeps a number of streams busy and says how long tokens took.

use super::arrivals;
use super::completion::{self, Outcome};
use super::summary::Summary;
use crate::client::endpoint::Endpoint;
use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A request that begins later than this after its time was held up by the load generator.
const LATE: Duration = Duration::from_millis(10);

#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Streams at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: u32,
    /// Requests in all; without it, four for each stream
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests: Option<u32>,
    /// Begin this many requests a second on average, at random (Poisson), as far as --concurrency allows; without it,
    /// each stream begins its next request when the last one ends
    #[arg(long, value_name = "PER_SECOND", value_parser = arrivals::rate)]
    pub rate: Option<f64>,
    /// Requests before the measurement begins, one after another
    #[arg(long, value_name = "REQUESTS", default_value_t = 1)]
    pub warm_up: u32,
    /// Of each request
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub prompt_tokens: u32,
    /// Of each request; no end of the model's own makes it shorter
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub output_tokens: u32,
    /// Another seed, other prompts and other arrivals
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A request that takes longer than this many seconds counts as failed
    #[arg(long, default_value_t = 600)]
    pub timeout_secs: u64,
}

impl Load {
    fn requests(&self) -> u32 {
        self.requests.unwrap_or(self.concurrency.saturating_mul(4))
    }
}

/// Runs the load to its end. Progress goes to stderr where that is a terminal.
///
/// # Errors
/// When no request at all succeeded.
pub async fn run(load: Load, endpoint: Endpoint, model: String) -> anyhow::Result<Summary> {
    let bench = Bench {
        model,
        endpoint,
        next: AtomicU32::new(0),
        late: AtomicUsize::new(0),
        progress: progress(load.requests()),
        load,
    };
    bench.warm_up().await?;
    let summary = bench.measure().await;
    if summary.succeeded == 0 {
        bail!(
            "no request succeeded; the first said: {}",
            summary.first_error.unwrap_or_default()
        );
    }
    Ok(summary)
}

fn progress(requests: u32) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} requests, {elapsed}, {eta} left");
    ProgressBar::new(u64::from(requests)).with_style(style.expect("a template that is right"))
}

/// What all streams share.
struct Bench {
    load: Load,
    endpoint: Endpoint,
    model: String,
    /// The number of the next request.
    next: AtomicU32,
    late: AtomicUsize,
    progress: ProgressBar,
}

/// When the measurement began, and when after that each request may.
struct Schedule {
    started: Instant,
    starts: Option<Vec<Duration>>,
}

impl Bench {
    /// With prompts of their own, so that the measured ones find nothing cached.
    async fn warm_up(&self) -> anyhow::Result<()> {
        for number in 0..self.load.warm_up {
            let prompt = random_prompt(!self.load.seed, number, self.load.prompt_tokens);
            completion::complete(&self.endpoint, self.body(prompt)).await?;
        }
        Ok(())
    }

    async fn measure(self) -> Summary {
        let rate = self.load.rate;
        let schedule = Arc::new(Schedule {
            starts: rate.map(|rate| arrivals::poisson(self.load.seed, rate, self.load.requests())),
            started: Instant::now(),
        });
        let bench = Arc::new(self);
        let streams: Vec<_> = (0..bench.load.concurrency)
            .map(|_| tokio::spawn(keep_busy(Arc::clone(&bench), Arc::clone(&schedule))))
            .collect();
        let mut outcomes = Vec::new();
        for stream in streams {
            outcomes.extend(stream.await.expect("a stream of load does not panic"));
        }
        bench.progress.finish_and_clear();
        let late = bench.late.load(Ordering::Relaxed);
        Summary::of(&outcomes, schedule.started.elapsed(), late)
    }

    /// Waits for the time of request `index`.
    async fn begin(&self, index: u32, schedule: &Schedule) {
        let Some(starts) = &schedule.starts else {
            return;
        };
        let start = schedule.started + starts[index as usize];
        if start.elapsed() > LATE {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep_until(start.into()).await;
    }

    async fn request(&self, index: u32) -> Result<Outcome, String> {
        let prompt = random_prompt(self.load.seed, index, self.load.prompt_tokens);
        let answer = completion::complete(&self.endpoint, self.body(prompt));
        match tokio::time::timeout(Duration::from_secs(self.load.timeout_secs), answer).await {
            Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no answer within {} s", self.load.timeout_secs)),
        }
    }

    fn body(&self, prompt: Vec<u32>) -> String {
        serde_json::json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": self.load.output_tokens,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": {"include_usage": true},
        })
        .to_string()
    }
}

/// One stream: request after request until none is left.
async fn keep_busy(bench: Arc<Bench>, schedule: Arc<Schedule>) -> Vec<Result<Outcome, String>> {
    let mut outcomes = Vec::new();
    loop {
        let index = bench.next.fetch_add(1, Ordering::Relaxed);
        if index >= bench.load.requests() {
            return outcomes;
        }
        bench.begin(index, &schedule).await;
        outcomes.push(bench.request(index).await);
        bench.progress.inc(1);
    }
}

/// Ids from 1,000 to 29,999: ordinary tokens in every vocabulary in use, past control tokens and single bytes.
fn random_prompt(seed: u64, index: u32, tokens: u32) -> Vec<u32> {
    let first = arrivals::mixed(seed ^ arrivals::mixed(u64::from(index)));
    let id = |place: u32| 1_000 + (arrivals::mixed(first ^ u64::from(place)) % 29_000) as u32;
    (0..tokens).map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        load: Load,
    }

    #[test]
    fn prompts_have_the_exact_length_and_differ_between_requests_and_seeds() {
        let first = random_prompt(0, 0, 100);
        assert_eq!(first.len(), 100);
        assert!(first.iter().all(|id| (1_000..30_000).contains(id)));
        assert_eq!(first, random_prompt(0, 0, 100));
        assert_ne!(first, random_prompt(0, 1, 100));
        assert_ne!(first, random_prompt(1, 0, 100));
    }

    #[test]
    fn what_makes_no_load_is_refused() {
        for (flag, value) in [
            ("--concurrency", "0"),
            ("--prompt-tokens", "0"),
            ("--rate", "0"),
            ("--rate", "inf"),
        ] {
            assert!(
                Line::try_parse_from(["bench", flag, value]).is_err(),
                "{flag} {value}"
            );
        }
        assert_eq!(Line::parse_from(["bench"]).load.requests(), 32);
    }
}
