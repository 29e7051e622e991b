//! What a run of load comes to.

use super::completion::Outcome;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// All times in milliseconds, all rates per second of wall time, prefill included.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Summary {
    pub succeeded: usize,
    pub failed: usize,
    /// Requests that began late because all streams were busy: their waiting is in no other figure.
    pub late: usize,
    pub first_error: Option<String>,
    pub wall_secs: f64,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub output_tokens_per_sec: f64,
    pub total_tokens_per_sec: f64,
    /// Time to the first token.
    pub ttft_ms: Percentiles,
    /// Time for each output token after the first, as an average of its request.
    pub tpot_ms: Percentiles,
    /// Time to the last token.
    pub request_ms: Percentiles,
}

/// By nearest rank; zero where nothing was measured.
#[derive(Serialize, Clone, Copy, PartialEq, Debug, Default)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Summary {
    pub fn of(outcomes: &[Result<Outcome, String>], wall: Duration, late: usize) -> Summary {
        let done: Vec<&Outcome> = outcomes.iter().flatten().collect();
        let prompt_tokens = done.iter().map(|outcome| outcome.prompt_tokens).sum::<u64>();
        let output_tokens = done.iter().map(|outcome| outcome.output_tokens).sum::<u64>();
        let per_sec = |tokens: u64| tokens as f64 / wall.as_secs_f64().max(f64::MIN_POSITIVE);
        Summary {
            succeeded: done.len(),
            failed: outcomes.len() - done.len(),
            late,
            first_error: outcomes
                .iter()
                .find_map(|outcome| outcome.as_ref().err().cloned()),
            wall_secs: wall.as_secs_f64(),
            prompt_tokens,
            output_tokens,
            output_tokens_per_sec: per_sec(output_tokens),
            total_tokens_per_sec: per_sec(prompt_tokens + output_tokens),
            ttft_ms: Percentiles::of(done.iter().map(|outcome| outcome.first_token)),
            tpot_ms: Percentiles::of(done.iter().filter_map(|outcome| outcome.per_token())),
            request_ms: Percentiles::of(done.iter().map(|outcome| outcome.last_token)),
        }
    }
}

impl Percentiles {
    fn of(times: impl Iterator<Item = Duration>) -> Percentiles {
        let mut sorted: Vec<Duration> = times.collect();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Percentiles {
            p50: at(50),
            p95: at(95),
            p99: at(99),
        }
    }
}

/// Of a few rounds. The median of an even number is the greater one.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// # Panics
    /// Without a value.
    pub fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        Spread {
            min: values[0],
            median: values[values.len() / 2],
            max: values[values.len() - 1],
        }
    }
}

impl fmt::Display for Spread {
    /// The median, and how far the rounds lie apart.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.max - self.min) / self.median.max(f64::MIN_POSITIVE) * 50.0;
        out.pad(&format!("{:.1} ±{percent:.0}%", self.median))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "requests          {} done, {} failed, {:.2} s",
            self.succeeded, self.failed, self.wall_secs
        )?;
        if let Some(error) = &self.first_error {
            writeln!(out, "first error       {error}")?;
        }
        if self.late > 0 {
            writeln!(
                out,
                "began late        {} requests: raise --concurrency to keep the rate",
                self.late
            )?;
        }
        writeln!(
            out,
            "tokens            {} in, {} out",
            self.prompt_tokens, self.output_tokens
        )?;
        writeln!(
            out,
            "tokens a second   {:.1} out, {:.1} in and out",
            self.output_tokens_per_sec, self.total_tokens_per_sec
        )?;
        writeln!(out, "                       p50        p95        p99")?;
        for (name, times) in [
            ("first token, ms", self.ttft_ms),
            ("each token, ms", self.tpot_ms),
            ("request, ms", self.request_ms),
        ] {
            writeln!(
                out,
                "{name:<16}{:>10.2} {:>10.2} {:>10.2}",
                times.p50, times.p95, times.p99
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(first_ms: u64, last_ms: u64) -> Result<Outcome, String> {
        Ok(Outcome {
            first_token: Duration::from_millis(first_ms),
            last_token: Duration::from_millis(last_ms),
            prompt_tokens: 10,
            output_tokens: 5,
        })
    }

    #[test]
    fn rates_count_what_succeeded_over_all_the_time() {
        let outcomes = [outcome(100, 500), Err("full".to_owned()), outcome(300, 500)];
        let summary = Summary::of(&outcomes, Duration::from_secs(2), 0);
        assert_eq!((summary.succeeded, summary.failed), (2, 1));
        assert_eq!(summary.first_error.as_deref(), Some("full"));
        assert_eq!(summary.output_tokens_per_sec, 5.0);
        assert_eq!(summary.total_tokens_per_sec, 15.0);
        assert_eq!(
            summary.ttft_ms,
            Percentiles {
                p50: 100.0,
                p95: 300.0,
                p99: 300.0
            }
        );
        assert_eq!(summary.tpot_ms.p95, 100.0);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred = Percentiles::of((1..=100).map(Duration::from_millis));
        assert_eq!(
            hundred,
            Percentiles {
                p50: 50.0,
                p95: 95.0,
                p99: 99.0
            }
        );
        assert_eq!(Percentiles::of(std::iter::empty()), Percentiles::default());
    }
}
