//! `cluster drain`.

use super::data_dir::DataDir;
use crate::control::{ControlRequest, client};
use clap::Args;
use serde_json::json;

/// Run nothing new on a node's replicas; what runs there goes on elsewhere, with the same tokens
///
/// The node itself goes on to answer requests, and to vote. Where no other node holds a model, its requests are refused.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster drain 17               # before its host is worked on
  cluster drain 17 --resume")]
pub struct Drain {
    /// Its number in `cluster node list`
    node: u64,
    /// Use its replicas again
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"node", "drained": true|false}
    #[arg(long)]
    json: bool,
}

impl Drain {
    pub fn run(self) -> anyhow::Result<()> {
        let node = self.node;
        let (request, words) = match self.resume {
            false => (ControlRequest::DrainNode { node }, "drained"),
            true => (ControlRequest::ResumeNode { node }, "resumed"),
        };
        let (): () = client::ask(&self.data_dir.folder()?, &request)?;
        if self.json {
            println!("{}", json!({"node": node, "drained": !self.resume}));
        } else {
            println!("{words} node {node}");
        }
        Ok(())
    }
}
