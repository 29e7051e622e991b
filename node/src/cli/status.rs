//! `cluster status`.

use super::agreed;
use super::data_dir::DataDir;
use super::tell::tell;
use super::watch::{self, Format};
use crate::control::report::{ReplicaStatus, StatusReport};
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
    #[arg(long, value_name = "SECONDS", requires = "watch", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
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
    tell_all(&agreed::members(report));
    report.replicas.iter().for_each(print_replica);
    tell_all(&agreed::deployments(report));
    tell!("tenants  {}, {} API key(s)", report.tenants, report.keys);
}

fn tell_all(lines: &[String]) {
    lines.iter().for_each(|line| tell!("{line}"));
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
