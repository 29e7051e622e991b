//! How it went.

use crate::replica::History;
use crate::scenario::Scenario;
use proto::{Span, StreamId, Time};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Report {
    pub seed: u64,
    /// Virtual time until the last event.
    pub elapsed_secs: f64,
    pub all: TenantReport,
    pub tenants: Vec<TenantReport>,
    pub replicas: Vec<ReplicaReport>,
    pub prompts: PromptReport,
    /// What must never happen and did. Empty, or a bug has been found.
    pub violations: Vec<String>,
}

/// Streams (choices) of one tenant, or of all.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct TenantReport {
    pub name: String,
    pub streams: u64,
    pub completed: u64,
    /// Not taken, with an honest reason, at arrival.
    pub refused: u64,
    /// Taken, and given up later.
    pub abandoned: u64,
    pub failed: u64,
    /// The client went away.
    pub left: u64,
    pub output_tokens: u64,
    pub output_tokens_per_sec: f64,
    /// From arrival at the gateway to the first token there.
    pub ttft_ms: Quantiles,
    /// Mean time between a stream's tokens, for streams of two or more.
    pub tpot_ms: Quantiles,
}

/// What prefix caches and routing have spared.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub struct PromptReport {
    /// Prompt tokens of all replicas together that did not come from a cache. What was computed once more, after a
    /// preemption or a crash, is among them.
    pub computed_tokens: u64,
    /// What one replica would have computed for the same requests, with a cache that never forgets.
    pub least_tokens: u64,
}

#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct ReplicaReport {
    pub steps: u64,
    /// The part of the elapsed time that its device computed: of all stages' time, with several.
    pub busy: f64,
    /// The part of its stages' time that was lost while at least one step was under way: 1 - computed / (stages · occupied).
    pub bubble: f64,
    /// What of the bubble is hops. The rest is stages that wait for one another.
    pub bubble_between: f64,
    pub preemptions: u64,
    pub prefix_queried_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub sampled_tokens: u64,
}

/// All zero where there was nothing to measure.
#[derive(Serialize, Clone, Copy, PartialEq, Debug, Default)]
pub struct Quantiles {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Report {
    /// The same bytes for the same report.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report holds nothing that JSON cannot say")
    }
}

impl Quantiles {
    /// Nearest rank: every quantile is a value that was measured.
    fn of(mut spans: Vec<Span>) -> Quantiles {
        spans.sort_unstable();
        let Some(max) = spans.last() else {
            return Quantiles::default();
        };
        let count = spans.len();
        let rank = |percent: usize| spans[(count * percent).div_ceil(100).max(1) - 1].as_millis_f64();
        let sum: u128 = spans.iter().map(|span| u128::from(span.0)).sum();
        Quantiles {
            count: count as u64,
            mean: sum as f64 / count as f64 / 1e6,
            p50: rank(50),
            p95: rank(95),
            p99: rank(99),
            max: max.as_millis_f64(),
        }
    }
}

/// How a stream ended, for the one who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Completed,
    Refused,
    Abandoned,
    Failed,
    Left,
}

/// What clients see, stream by stream.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    streams: BTreeMap<StreamId, Record>,
}

#[derive(Debug)]
struct Record {
    tenant: usize,
    arrived: Time,
    first: Option<Time>,
    last: Time,
    tokens: u64,
    outcome: Option<Outcome>,
}

impl Recorder {
    pub fn began(&mut self, stream: StreamId, tenant: usize, now: Time) {
        let record = Record {
            tenant,
            arrived: now,
            first: None,
            last: now,
            tokens: 0,
            outcome: None,
        };
        self.streams.insert(stream, record);
    }

    pub fn released(&mut self, stream: StreamId, now: Time) {
        if let Some(record) = self.streams.get_mut(&stream) {
            record.first.get_or_insert(now);
            record.last = now;
            record.tokens += 1;
        }
    }

    pub fn ended(&mut self, stream: StreamId, outcome: Outcome) {
        if let Some(record) = self.streams.get_mut(&stream) {
            record.outcome.get_or_insert(outcome);
        }
    }

    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams
            .get(&stream)
            .is_some_and(|record| record.outcome.is_none())
    }

    pub fn report(
        &self,
        scenario: &Scenario,
        seed: u64,
        end: Time,
        histories: Vec<History>,
        prompt_tokens_least: u64,
        violations: Vec<String>,
    ) -> Report {
        let elapsed = end.since(Time::ZERO);
        let tenants = scenario.tenant_names().enumerate();
        let prompts = PromptReport {
            computed_tokens: self.prompt_tokens_computed(&histories),
            least_tokens: prompt_tokens_least,
        };
        Report {
            seed,
            elapsed_secs: elapsed.as_secs_f64(),
            all: tenant_report("all", elapsed, self.streams.values().collect()),
            tenants: tenants
                .map(|(index, tenant)| tenant_report(tenant, elapsed, self.of_tenant(index)))
                .collect(),
            replicas: histories
                .into_iter()
                .map(|history| replica_report(history, scenario.device.stages, elapsed))
                .collect(),
            prompts,
            violations,
        }
    }

    /// Every token but a stream's first, which comes with the end of its prompt, takes one computed position.
    fn prompt_tokens_computed(&self, histories: &[History]) -> u64 {
        let computed: u64 = histories.iter().map(|history| history.computed_tokens).sum();
        let sampled: u64 = histories.iter().map(|history| history.sampled_tokens).sum();
        let began = self
            .streams
            .values()
            .filter(|record| record.first.is_some())
            .count();
        (computed + began as u64).saturating_sub(sampled)
    }

    fn of_tenant(&self, tenant: usize) -> Vec<&Record> {
        self.streams
            .values()
            .filter(|record| record.tenant == tenant)
            .collect()
    }
}

impl Record {
    fn ttft(&self) -> Option<Span> {
        self.first.map(|first| first.since(self.arrived))
    }

    fn tpot(&self) -> Option<Span> {
        let gaps = self.tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        self.first.map(|first| Span(self.last.since(first).0 / gaps))
    }
}

fn tenant_report(name: &str, elapsed: Span, records: Vec<&Record>) -> TenantReport {
    let count = |outcome| {
        records
            .iter()
            .filter(|record| record.outcome == Some(outcome))
            .count() as u64
    };
    let output_tokens: u64 = records.iter().map(|record| record.tokens).sum();
    TenantReport {
        name: name.to_owned(),
        streams: records.len() as u64,
        completed: count(Outcome::Completed),
        refused: count(Outcome::Refused),
        abandoned: count(Outcome::Abandoned),
        failed: count(Outcome::Failed),
        left: count(Outcome::Left),
        output_tokens,
        output_tokens_per_sec: rate(output_tokens as f64, elapsed),
        ttft_ms: Quantiles::of(records.iter().filter_map(|record| record.ttft()).collect()),
        tpot_ms: Quantiles::of(records.iter().filter_map(|record| record.tpot()).collect()),
    }
}

fn replica_report(history: History, stages: u32, elapsed: Span) -> ReplicaReport {
    ReplicaReport {
        steps: history.steps,
        busy: rate(history.busy.as_secs_f64(), elapsed) / f64::from(stages),
        bubble: history.pipeline.bubble(),
        bubble_between: history.pipeline.bubble_between(),
        preemptions: history.preemptions,
        prefix_queried_tokens: history.prefix_queried_tokens,
        prefix_hit_tokens: history.prefix_hit_tokens,
        sampled_tokens: history.sampled_tokens,
    }
}

fn rate(amount: f64, elapsed: Span) -> f64 {
    if elapsed == Span::ZERO {
        0.0
    } else {
        amount / elapsed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values_by_nearest_rank() {
        let quantiles = Quantiles::of((1..=200).rev().map(Span::from_millis).collect());
        let expected = Quantiles {
            count: 200,
            mean: 100.5,
            p50: 100.0,
            p95: 190.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(quantiles, expected);
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
