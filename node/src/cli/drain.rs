//! `cluster drain`.

use super::data_dir::DataDir;
use super::tell::tell;
use crate::control::report::DrainReport;
use crate::control::{ControlRequest, client};
use clap::Args;
use serde_json::json;
use std::path::Path;

/// Use a node's replicas no more; what runs there goes on elsewhere, with the same tokens
///
/// Models that were deployed to the cluster go to other nodes, and are served here until they have come up there; where there
/// is no other place, the node goes on serving them until there is, which is said. What the node serves by its own --model is
/// not used any more: where no other node serves it, its requests are refused. The node itself goes on to answer requests, and
/// to vote.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster drain 17               # before its host is worked on
  cluster drain 17 --resume")]
pub struct Drain {
    /// Its number in `cluster node list`
    #[arg(value_parser = super::node::number)]
    node: u64,
    /// Use its replicas again
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"node", "drained": true|false, "moves": [model…], "stays": [{"model", "reason"}…], "unserved": [model…]}
    #[arg(long)]
    json: bool,
}

impl Drain {
    pub fn run(self) -> anyhow::Result<()> {
        let node = self.node;
        let folder = self.data_dir.folder()?;
        let report = match self.resume {
            false => drain(&folder, node)?,
            true => {
                let (): () = client::ask(&folder, &ControlRequest::ResumeNode { node })?;
                DrainReport::default()
            }
        };
        if self.json {
            let DrainReport {
                moves,
                stays,
                unserved,
            } = report;
            let drained = !self.resume;
            tell!(
                "{}",
                json!({"node": node, "drained": drained, "moves": moves, "stays": stays, "unserved": unserved})
            );
        } else {
            let words = if self.resume { "resumed" } else { "drained" };
            tell!("{words} node {node}");
            lines(&report, node).iter().for_each(|line| tell!("{line}"));
        }
        Ok(())
    }
}

fn drain(folder: &Path, node: u64) -> anyhow::Result<DrainReport> {
    // A node that still runs an earlier program drains, and says nothing.
    let report: Option<DrainReport> = client::ask(folder, &ControlRequest::DrainNode { node })?;
    Ok(report.unwrap_or_default())
}

fn lines(report: &DrainReport, node: u64) -> Vec<String> {
    let moves = report
        .moves
        .iter()
        .map(|model| format!("{model} goes elsewhere, and is served here until it has come up there"));
    let stays = report
        .stays
        .iter()
        .map(|staying| format!("{} has no other place: {}", staying.model, staying.reason));
    let unserved = report.unserved.iter().map(|model| {
        format!("{model} is refused from now on: no other node serves it than {node}, by its own choice")
    });
    moves.chain(stays).chain(unserved).collect()
}
