//! What nodes have agreed on, as lines for people.

use super::node;
use crate::control::report::{DeploymentStatus, Expectation, PlacementStatus, RaftStatus, StatusReport};

/// Who leads, and which nodes there are.
pub fn members(report: &StatusReport) -> Vec<String> {
    let mut lines = vec![format!("raft     {}", agreement(&report.raft))];
    lines.extend(
        report
            .raft
            .trouble
            .iter()
            .map(|trouble| format!("         {trouble}")),
    );
    if report.nodes.len() > 1 {
        lines.push(node::header());
        lines.extend(report.nodes.iter().map(node::line));
    }
    lines
}

/// What is deployed, and where it is.
pub fn deployments(report: &StatusReport) -> Vec<String> {
    report.deployments.iter().flat_map(deployment).collect()
}

fn deployment(deployment: &DeploymentStatus) -> Vec<String> {
    let mut lines = vec![format!(
        "deployed {}: {} of {} placed",
        deployment.model,
        deployment.placed.len(),
        deployment.replicas
    )];
    lines.extend(deployment.placed.iter().flat_map(placement));
    let waits = deployment.waits_for.iter();
    lines.extend(waits.map(|reason| format!("         waits: {reason}")));
    lines
}

fn placement(placement: &PlacementStatus) -> Vec<String> {
    let stages: Vec<String> = placement
        .stages
        .iter()
        .map(|stage| {
            let last = stage.layer_end.saturating_sub(1);
            let mebibytes = stage.memory_bytes.div_ceil(1 << 20);
            format!(
                "node {}: layers {} to {last}, {mebibytes} MiB",
                stage.node, stage.layer_first
            )
        })
        .collect();
    vec![
        format!("         replica {}: {}", placement.replica, stages.join("; ")),
        format!(
            "         one stream {} tok/s, prompts {} tok/s{}",
            expected(&placement.decode_tokens_per_sec),
            expected(&placement.prefill_tokens_per_sec),
            idle(placement)
        ),
    ]
}

fn idle(placement: &PlacementStatus) -> String {
    let Some(bubble) = placement.bubble else {
        return String::new();
    };
    let slowest = placement.slowest().map(|(stage, share)| {
        format!(
            "; they wait for node {}, which does {:.0}% of the computing",
            stage.node,
            share * 100.0
        )
    });
    format!(
        ", stages idle {:.0}% of the time{}",
        bubble * 100.0,
        slowest.unwrap_or_default()
    )
}

fn expected(expectation: &Expectation) -> String {
    let Some(measured) = expectation.measured else {
        return format!("{:.1} predicted", expectation.predicted);
    };
    match expectation.off_percent() {
        Some(off) => format!(
            "{measured:.1} ({:.1} predicted: {off:+.0}%)",
            expectation.predicted
        ),
        None => format!("{measured:.1} (as predicted)"),
    }
}

/// In half a line.
pub fn agreement(raft: &RaftStatus) -> String {
    let leader = raft
        .leader
        .map_or("no leader: changes have to wait".to_owned(), |leader| {
            format!("node {leader} leads")
        });
    format!(
        "{leader}, term {}, {} voter(s), {} learner(s), applied {} of {}",
        raft.term,
        raft.voters.len(),
        raft.learners.len(),
        raft.applied_index,
        raft.last_index
    )
}
