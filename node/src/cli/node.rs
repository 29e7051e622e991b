//! `cluster node`.

use super::data_dir::DataDir;
use super::tell::tell;
use crate::control::report::{NodeStatus, Nodes};
use crate::control::{ControlRequest, client};
use clap::{Args, Subcommand};
use serde_json::json;

/// Nodes of the cluster: list, remove
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Node {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    List(List),
    #[command(name = "rm")]
    Remove(Remove),
}

const EXAMPLES: &str = "\
Examples:
  cluster node list
  cluster node rm 17";

/// List all nodes: what they may become, what they are, and where
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster node list
  cluster node list --json | jq -r '.nodes[] | select(.part == \"leader\") | .http'")]
struct List {
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"nodes": [{"node", "role", "part", "drained", "quic", "http", "connected", "round_trip_ms", "joined_at_secs"}]}
    #[arg(long)]
    json: bool,
}

/// Remove a node for good: it is cut off at once, and its id is never used again
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  cluster node rm 17")]
struct Remove {
    /// Its number in `cluster node list`
    #[arg(value_parser = number)]
    node: u64,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"removed": NODE}
    #[arg(long)]
    json: bool,
}

/// Of a node.
pub fn number(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| "a node is a number, as in the first column of `cluster node list`".to_owned())
}

impl Node {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::List(list) => list.run(),
            What::Remove(remove) => remove.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let found: Nodes = client::ask(&self.data_dir.folder()?, &ControlRequest::ListNodes)?;
        if self.json {
            tell!("{}", serde_json::to_string(&found)?);
            return Ok(());
        }
        tell!("{}", header());
        found.nodes.iter().for_each(|node| tell!("{}", line(node)));
        Ok(())
    }
}

/// Above lines of [`line()`].
pub fn header() -> String {
    format!(
        "{:<6} {:<8} {:<16} {:<22} {:<28} LINK",
        "NODE", "ROLE", "PART", "QUIC", "HTTP"
    )
}

pub fn line(node: &NodeStatus) -> String {
    let link = match (node.connected, node.round_trip_ms) {
        (true, Some(round_trip)) => format!("{round_trip:.2} ms"),
        (true, None) => "this node".to_owned(),
        (false, _) => "none".to_owned(),
    };
    let part = match node.drained {
        true => format!("{}, drained", node.part),
        false => node.part.clone(),
    };
    format!(
        "{:<6} {:<8} {part:<16} {:<22} {:<28} {link}",
        node.node, node.role, node.quic, node.http
    )
}

impl Remove {
    fn run(self) -> anyhow::Result<()> {
        let request = ControlRequest::RemoveNode { node: self.node };
        let (): () = client::ask(&self.data_dir.folder()?, &request)?;
        if self.json {
            tell!("{}", json!({"removed": self.node}));
        } else {
            tell!("removed node {}", self.node);
        }
        Ok(())
    }
}
