//! What is shown, as lines.

use super::rates::{History, Track, kv_use, prefix_hits};
use super::terminal::Size;
use crate::cli::agreed;
use crate::control::report::{FirstToken, StatusReport};
use std::collections::VecDeque;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A whole screen: no line is wider and there are no more lines than fit.
pub fn frame(report: &StatusReport, history: &History, size: Size) -> Vec<String> {
    let health = report.reason.as_deref().unwrap_or("healthy");
    let mut lines = vec![
        format!(
            "cluster {} · {} · {health} · up {}",
            report.version,
            report.http,
            uptime(report.uptime_secs)
        ),
        format!(
            "{:.1} tok/s · first token {} · {} tenant(s), {} key(s)",
            history.output_tokens_per_sec(),
            first_token(report.first_token_ms),
            report.tenants,
            report.keys
        ),
    ];
    lines.extend(agreed::members(report));
    for track in history.tracks() {
        lines.push(String::new());
        lines.extend(replica(track, size.columns));
    }
    if !report.deployments.is_empty() {
        lines.push(String::new());
        lines.extend(agreed::deployments(report));
    }
    let body = usize::from(size.rows.saturating_sub(1));
    lines.truncate(body);
    lines.resize(body, String::new());
    lines.push("q leaves".to_owned());
    lines.iter().map(|line| cut(line, size.columns)).collect()
}

fn replica(track: &Track, columns: u16) -> Vec<String> {
    let last = &track.last;
    let (output, prompt, steps) = track.now.map_or((0.0, 0.0, 0.0), |rates| {
        (
            rates.output_tokens_per_sec,
            rates.prompt_tokens_per_sec,
            rates.steps_per_sec,
        )
    });
    let width = usize::from(columns).saturating_sub(10).min(120);
    vec![
        format!(
            "replica {} · {} · {} · epoch {}",
            last.replica, last.model, last.state, last.epoch
        ),
        format!("  {output:.1} tok/s out · {prompt:.1} tok/s in · {steps:.1} steps/s"),
        format!(
            "  {} running · {} waiting · {} preemption(s)",
            last.running, last.waiting, last.preemptions
        ),
        format!("  KV     {}", bar(kv_use(last), width.min(30))),
        format!(
            "  prefix {}",
            prefix_hits(last).map_or("no lookups yet".to_owned(), |share| bar(share, width.min(30)))
        ),
        format!("  tok/s  {}", sparkline(&track.output, width)),
    ]
}

/// One line for a log.
pub fn line(report: &StatusReport, history: &History) -> String {
    let replicas = history.tracks().map(|track| {
        let last = &track.last;
        format!(
            "{} {}: {:.1} tok/s, {} running, {} waiting, KV {:.0}%, prefix hits {}",
            last.model,
            last.state,
            track.now.map_or(0.0, |rates| rates.output_tokens_per_sec),
            last.running,
            last.waiting,
            kv_use(last) * 100.0,
            prefix_hits(last).map_or("-".to_owned(), |share| format!("{:.0}%", share * 100.0)),
        )
    });
    let parts = std::iter::once(agreed::agreement(&report.raft)).chain(replicas);
    parts.collect::<Vec<_>>().join("; ")
}

fn first_token(times: Option<FirstToken>) -> String {
    times.map_or("-".to_owned(), |times| {
        format!("p50 {:.0} ms p95 {:.0} ms", times.p50, times.p95)
    })
}

fn bar(share: f64, width: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    let (full, rest) = ("█".repeat(full), "░".repeat(width - full));
    format!("{full}{rest} {:.0}%", share * 100.0)
}

/// The latest values that fit, each a bar between nothing and the greatest of them.
fn sparkline(values: &VecDeque<f64>, width: usize) -> String {
    let shown = values.range(values.len().saturating_sub(width)..);
    let greatest = shown.clone().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let height = if greatest > 0.0 { value / greatest } else { 0.0 };
        BARS[(height * 7.0).round() as usize]
    };
    shown.map(bar).collect()
}

fn uptime(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", secs % 60),
        (0, hours) => format!("{hours} h {minutes} min"),
        (days, hours) => format!("{days} d {hours} h"),
    }
}

/// Names may be wide; what is cut is cut between characters.
fn cut(line: &str, columns: u16) -> String {
    line.chars()
        .filter(|letter| !letter.is_control())
        .take(usize::from(columns))
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::control::report::{DeploymentStatus, RaftStatus, ReplicaStatus};
    use std::time::{Duration, Instant};

    pub fn report() -> StatusReport {
        StatusReport {
            version: "0.1.0".to_owned(),
            pid: 1,
            uptime_secs: 3725,
            http: "http://127.0.0.1:8000".to_owned(),
            healthy: true,
            reason: None,
            node: 1,
            quic: "127.0.0.1:8001".to_owned(),
            raft: RaftStatus {
                leader: Some(1),
                term: 1,
                voters: vec![1],
                learners: Vec::new(),
                last_index: 4,
                applied_index: 4,
                feature_level: 1,
                trouble: None,
            },
            nodes: Vec::new(),
            deployments: Vec::new(),
            replicas: vec![ReplicaStatus {
                replica: 0,
                node: 1,
                model: "a model".to_owned(),
                epoch: 1,
                state: "ready".to_owned(),
                description: None,
                context_tokens_max: Some(100),
                running: 2,
                waiting: 1,
                blocks_total: 100,
                blocks_free: 25,
                blocks_cached: 25,
                steps: 10,
                preemptions: 0,
                sampled_tokens: 50,
                computed_tokens: 90,
                prefix_queried_tokens: 40,
                prefix_hit_tokens: 10,
            }],
            first_token_ms: Some(FirstToken {
                p50: 80.0,
                p95: 120.0,
            }),
            tenants: 1,
            keys: 1,
        }
    }

    fn history(report: &mut StatusReport) -> History {
        let (began, mut history) = (Instant::now(), History::default());
        for second in 0..5 {
            history.add(began + Duration::from_secs(second), report);
            report.replicas[0].sampled_tokens += 10 * (second + 1);
        }
        history
    }

    #[test]
    fn a_frame_fills_the_window_and_never_more() {
        let mut report = report();
        let history = history(&mut report);
        for (columns, rows) in [(80, 24), (20, 5), (1, 1)] {
            let lines = frame(&report, &history, Size { columns, rows });
            assert_eq!(lines.len(), usize::from(rows.max(1)));
            let widest = lines.iter().map(|line| line.chars().count()).max();
            assert!(widest <= Some(usize::from(columns)), "{lines:#?}");
        }
    }

    #[test]
    fn a_frame_tells_how_the_replica_does_and_what_is_agreed_on() {
        let mut report = report();
        report.deployments = vec![DeploymentStatus {
            model: "big".to_owned(),
            replicas: 2,
            waits_for: Some("no room".to_owned()),
            placed: Vec::new(),
        }];
        let history = history(&mut report);
        let shown = frame(
            &report,
            &history,
            Size {
                columns: 80,
                rows: 24,
            },
        )
        .join("\n");
        for words in [
            "up 1 h 2 min",
            "node 1 leads, term 1, 1 voter(s)",
            "deployed big: 0 of 2 placed",
            "waits: no room",
            "40.0 tok/s",
            "p50 80 ms p95 120 ms",
            "2 running · 1 waiting",
            "50%",
            "25%",
            "tok/s  ▃▅▆█",
        ] {
            assert!(shown.contains(words), "no {words:?} in\n{shown}");
        }
        let logged = line(&report, &history);
        let (agreed, replica) = logged.split_once("; ").unwrap();
        assert!(agreed.starts_with("node 1 leads, term 1"), "{agreed}");
        assert_eq!(
            replica,
            "a model ready: 40.0 tok/s, 2 running, 1 waiting, KV 50%, prefix hits 25%"
        );
    }
}
