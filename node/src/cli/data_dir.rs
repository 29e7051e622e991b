//! Which node of this host a command talks to.

use crate::config::high::Machine;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct DataDir {
    /// The folder that the node was started with [default: ~/.local/share/cluster]
    #[arg(long, value_name = "DIR", env = "CLUSTER_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    pub fn folder(&self) -> anyhow::Result<PathBuf> {
        match &self.data_dir {
            Some(folder) => Ok(folder.clone()),
            None => Ok(Machine::here()
                .home
                .context("HOME is not set: give --data-dir DIR")?
                .join(".local/share/cluster")),
        }
    }
}
