//! Figures of one report after another.

use crate::control::report::{ReplicaStatus, StatusReport};
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Instant;

/// As many as the widest sparkline shows.
const KEPT: usize = 240;

/// What has been seen of each replica.
#[derive(Default)]
pub struct History {
    replicas: BTreeMap<u32, Track>,
}

pub struct Track {
    pub last: ReplicaStatus,
    seen: Instant,
    /// Since the report before; `None` with the first one, and after a restart.
    pub now: Option<Rates>,
    /// Output tokens a second, the latest at the end.
    pub output: VecDeque<f64>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    pub output_tokens_per_sec: f64,
    /// Prompt tokens that were computed, not found in the cache.
    pub prompt_tokens_per_sec: f64,
    pub steps_per_sec: f64,
}

impl History {
    pub fn add(&mut self, now: Instant, report: &StatusReport) {
        self.replicas
            .retain(|number, _| report.replicas.iter().any(|replica| replica.replica == *number));
        for replica in &report.replicas {
            match self.replicas.get_mut(&replica.replica) {
                Some(track) => track.add(now, replica),
                None => drop(self.replicas.insert(replica.replica, Track::begin(now, replica))),
            }
        }
    }

    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.replicas.values()
    }

    /// Of all replicas together.
    pub fn output_tokens_per_sec(&self) -> f64 {
        let rates = self.tracks().filter_map(|track| track.now);
        // From +0: the sum of nothing would be -0.
        rates.fold(0.0, |sum, rates| sum + rates.output_tokens_per_sec)
    }
}

impl Track {
    fn begin(now: Instant, replica: &ReplicaStatus) -> Track {
        Track {
            last: replica.clone(),
            seen: now,
            now: None,
            output: VecDeque::new(),
        }
    }

    fn add(&mut self, now: Instant, replica: &ReplicaStatus) {
        let elapsed_secs = now.duration_since(self.seen).as_secs_f64();
        self.now = Rates::between(&self.last, replica, elapsed_secs);
        if self.output.len() == KEPT {
            self.output.pop_front();
        }
        self.output
            .push_back(self.now.map_or(0.0, |rates| rates.output_tokens_per_sec));
        self.last = replica.clone();
        self.seen = now;
    }
}

impl Rates {
    /// Counters begin anew with each epoch, so nothing is known across two.
    fn between(before: &ReplicaStatus, after: &ReplicaStatus, elapsed_secs: f64) -> Option<Rates> {
        if before.epoch != after.epoch || elapsed_secs <= 0.0 {
            return None;
        }
        let rate = |count: fn(&ReplicaStatus) -> u64| {
            count(after).saturating_sub(count(before)) as f64 / elapsed_secs
        };
        let output = rate(|replica| replica.sampled_tokens);
        Some(Rates {
            output_tokens_per_sec: output,
            prompt_tokens_per_sec: (rate(|replica| replica.computed_tokens) - output).max(0.0),
            steps_per_sec: rate(|replica| replica.steps),
        })
    }
}

/// Share of KV blocks that running sequences own.
pub fn kv_use(replica: &ReplicaStatus) -> f64 {
    let owned = replica
        .blocks_total
        .saturating_sub(replica.blocks_free)
        .saturating_sub(replica.blocks_cached);
    f64::from(owned) / f64::from(replica.blocks_total.max(1))
}

/// Share of prompt tokens that were found in the cache, since the epoch began; `None`: nothing was looked up.
pub fn prefix_hits(replica: &ReplicaStatus) -> Option<f64> {
    let queried = replica.prefix_queried_tokens;
    (queried > 0).then(|| replica.prefix_hit_tokens as f64 / queried as f64)
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::report;
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_are_differences_within_an_epoch() {
        let began = Instant::now();
        let mut history = History::default();
        let mut report = report();
        history.add(began, &report);
        report.replicas[0].sampled_tokens += 100;
        report.replicas[0].computed_tokens += 300;
        history.add(began + Duration::from_secs(2), &report);
        let track = history.tracks().next().unwrap();
        let rates = track.now.unwrap();
        assert_eq!(
            (rates.output_tokens_per_sec, rates.prompt_tokens_per_sec),
            (50.0, 100.0)
        );
        report.replicas[0].epoch += 1;
        report.replicas[0].sampled_tokens = 0;
        history.add(began + Duration::from_secs(3), &report);
        assert_eq!(history.tracks().next().unwrap().now, None);
        report.replicas.clear();
        history.add(began + Duration::from_secs(4), &report);
        assert_eq!(history.tracks().count(), 0);
    }
}
