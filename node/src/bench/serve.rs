//! `cluster bench serve`: keeps a number of streams busy and says how long tokens took.

use super::completion::{Outcome, Target};
use super::summary::Summary;
use anyhow::{Context, bail};
use clap::Args;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A load generator against any OpenAI-compatible server.
///
/// Prompts are lists of random token ids, so that their length is exact and no prefix cache helps; greedy, and
/// `ignore_eos` where the server knows it.
#[derive(Args, Clone, Debug)]
pub struct BenchServeArgs {
    /// Where the server listens; plain HTTP
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// API key, sent as a bearer token
    #[arg(long, env = "CLUSTER_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The model's served name
    #[arg(long, default_value = "smollm2-135m")]
    pub model: String,
    /// Streams at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: u32,
    /// Requests in all; without it, four for each stream
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests: Option<u32>,
    /// Start this many requests a second, as far as --concurrency allows; without it, as fast as they end
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub prompt_tokens: u32,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub output_tokens: u32,
    /// Another seed, other prompts
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A request that takes longer than this many seconds counts as failed
    #[arg(long, default_value_t = 600)]
    pub timeout_secs: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl BenchServeArgs {
    fn requests(&self) -> u32 {
        self.requests.unwrap_or(self.concurrency.saturating_mul(4))
    }

    /// When, after the start, request `index` may begin.
    fn start_of(&self, index: u32) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(f64::from(index) / rate)
        })
    }
}

/// Runs the load to its end and prints the summary.
///
/// # Errors
/// When an argument makes no sense or no request at all succeeded.
pub async fn run(args: BenchServeArgs) -> anyhow::Result<()> {
    if args.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        bail!("--rate must be a number above 0");
    }
    let target = Target::parse(&args.url, args.key.clone()).context("--url")?;
    let summary = measure(args.clone(), target).await;
    if summary.succeeded == 0 {
        bail!(
            "no request succeeded; the first said: {}",
            summary.first_error.unwrap_or_default()
        );
    }
    match args.json {
        true => println!("{}", serde_json::to_string(&summary)?),
        false => print!("{summary}"),
    }
    Ok(())
}

async fn measure(args: BenchServeArgs, target: Target) -> Summary {
    let load = Arc::new(Load {
        args,
        target,
        next: AtomicU32::new(0),
        started: Instant::now(),
    });
    let streams: Vec<_> = (0..load.args.concurrency)
        .map(|_| tokio::spawn(keep_busy(load.clone())))
        .collect();
    let mut outcomes = Vec::new();
    for stream in streams {
        outcomes.extend(stream.await.expect("a stream of load does not panic"));
    }
    Summary::of(&outcomes, load.started.elapsed())
}

/// What all streams share.
struct Load {
    args: BenchServeArgs,
    target: Target,
    next: AtomicU32,
    started: Instant,
}

/// One stream: request after request until none is left.
async fn keep_busy(load: Arc<Load>) -> Vec<Result<Outcome, String>> {
    let mut outcomes = Vec::new();
    loop {
        let index = load.next.fetch_add(1, Ordering::Relaxed);
        if index >= load.args.requests() {
            return outcomes;
        }
        tokio::time::sleep_until((load.started + load.args.start_of(index)).into()).await;
        outcomes.push(one_request(&load, index).await);
    }
}

async fn one_request(load: &Load, index: u32) -> Result<Outcome, String> {
    let body = request_body(&load.args, index);
    let limit = Duration::from_secs(load.args.timeout_secs);
    match tokio::time::timeout(limit, load.target.complete(body)).await {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", load.args.timeout_secs)),
    }
}

fn request_body(args: &BenchServeArgs, index: u32) -> String {
    serde_json::json!({
        "model": args.model,
        "prompt": random_prompt(args.seed, index, args.prompt_tokens),
        "max_tokens": args.output_tokens,
        "temperature": 0,
        "ignore_eos": true,
        "stream": true,
        "stream_options": {"include_usage": true},
    })
    .to_string()
}

/// Ids from 1,000 to 29,999: ordinary tokens in every vocabulary in use, past control tokens and single bytes.
fn random_prompt(seed: u64, index: u32, tokens: u32) -> Vec<u32> {
    let mut state = mixed(seed ^ mixed(u64::from(index)));
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        1_000 + (mixed(state) % 29_000) as u32
    };
    (0..tokens).map(|_| next()).collect()
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchServeArgs,
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
    fn a_rate_spreads_the_starts() {
        let args = Line::parse_from(["bench", "--rate", "4"]).args;
        assert_eq!(args.start_of(8), Duration::from_secs(2));
        assert_eq!(args.requests(), 32);
    }

    #[test]
    fn no_streams_or_no_tokens_are_refused() {
        assert!(Line::try_parse_from(["bench", "--concurrency", "0"]).is_err());
        assert!(Line::try_parse_from(["bench", "--prompt-tokens", "0"]).is_err());
    }
}
