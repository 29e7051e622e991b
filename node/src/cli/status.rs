//! `cluster status`.

use crate::config::high::Machine;
use crate::control::{ReplicaStatus, StatusReport, client};
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cluster status
  cluster status --data-dir /var/lib/cluster --json";

/// Show what the node of this host is doing
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Status {
    /// The folder that the node was started with [default: ~/.local/share/cluster]
    #[arg(long, value_name = "DIR", env = "CLUSTER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub fn run(self) -> anyhow::Result<()> {
        let data_dir = match self.data_dir {
            Some(folder) => folder,
            None => Machine::here()
                .home
                .context("HOME is not set: give --data-dir DIR")?
                .join(".local/share/cluster"),
        };
        let report = client::status(&data_dir)?;
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print(&report);
        }
        Ok(())
    }
}

fn print(report: &StatusReport) {
    let health = report.reason.as_deref().unwrap_or("healthy");
    println!(
        "node     {}, up {} s, process {}",
        health, report.uptime_secs, report.pid
    );
    println!("http     {}", report.http);
    report.replicas.iter().for_each(print_replica);
    println!("tenants  {}, {} API key(s)", report.tenants, report.keys);
}

fn print_replica(replica: &ReplicaStatus) {
    println!(
        "replica  {} of {}: {}, epoch {}",
        replica.replica, replica.model, replica.state, replica.epoch
    );
    if let Some(description) = &replica.description {
        println!("         {description}");
    }
    println!(
        "         {} running, {} waiting, {} of {} KV blocks free ({} cached), {} steps",
        replica.running,
        replica.waiting,
        replica.blocks_free,
        replica.blocks_total,
        replica.blocks_cached,
        replica.steps
    );
}
