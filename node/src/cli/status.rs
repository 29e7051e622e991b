//! `cluster status`.

use super::data_dir::DataDir;
use super::node;
use super::tell::tell;
use super::watch::{self, Format};
use crate::control::report::{
    DeploymentStatus, Expectation, PlacementStatus, RaftStatus, ReplicaStatus, StatusReport,
};
use crate::control::{ControlRequest, client};
use clap::Args;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  cluster status
  cluster status --watch
  cluster status --watch --json | jq .replicas[0].running
  cluster status --data-dir /var/lib/cluster --json";

/// Show what the node of this host is doing
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Status {
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON; with --watch, a line each time
    #[arg(long)]
    json: bool,
    /// Go on showing it, live on a terminal; q leaves
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks of --watch
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

impl Status {
    pub fn run(self) -> anyhow::Result<()> {
        let folder = self.data_dir.folder()?;
        if self.watch {
            let format = if self.json { Format::Json } else { Format::Words };
            return watch::run(&folder, format, Duration::from_secs(self.interval));
        }
        let report: StatusReport = client::ask(&folder, &ControlRequest::Status)?;
        if self.json {
            tell!("{}", serde_json::to_string(&report)?);
        } else {
            print(&report);
        }
        Ok(())
    }
}

fn print(report: &StatusReport) {
    let health = report.reason.as_deref().unwrap_or("healthy");
    tell!(
        "node     {} {}, up {} s, process {}",
        report.node,
        health,
        report.uptime_secs,
        report.pid
    );
    tell!("http     {}", report.http);
    tell!("raft     {}", agreement(&report.raft));
    if let Some(trouble) = &report.raft.trouble {
        tell!("         {trouble}");
    }
    if report.nodes.len() > 1 {
        tell!("{}", node::header());
        report
            .nodes
            .iter()
            .for_each(|other| tell!("{}", node::line(other)));
    }
    report.replicas.iter().for_each(print_replica);
    report.deployments.iter().for_each(print_deployment);
    tell!("tenants  {}, {} API key(s)", report.tenants, report.keys);
}

fn print_deployment(deployment: &DeploymentStatus) {
    tell!(
        "deployed {}: {} of {} placed",
        deployment.model,
        deployment.placed.len(),
        deployment.replicas
    );
    deployment.placed.iter().for_each(print_placement);
    if let Some(reason) = &deployment.waits_for {
        tell!("         waits: {reason}");
    }
}

fn print_placement(placement: &PlacementStatus) {
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
    tell!("         replica {}: {}", placement.replica, stages.join("; "));
    tell!(
        "         one stream {} tok/s, prompts {} tok/s{}",
        expected(&placement.decode_tokens_per_sec),
        expected(&placement.prefill_tokens_per_sec),
        idle(placement)
    );
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

fn agreement(raft: &RaftStatus) -> String {
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

fn print_replica(replica: &ReplicaStatus) {
    tell!(
        "replica  {} of {} on node {}: {}, epoch {}",
        replica.replica,
        replica.model,
        replica.node,
        replica.state,
        replica.epoch
    );
    if let Some(description) = &replica.description {
        tell!("         {description}");
    }
    tell!(
        "         {} running, {} waiting, {} of {} KV blocks free ({} cached), {} steps",
        replica.running,
        replica.waiting,
        replica.blocks_free,
        replica.blocks_total,
        replica.blocks_cached,
        replica.steps
    );
}
