//! `cluster backup`, `cluster restore`, `cluster recover`.

use super::data_dir::DataDir;
use super::tell::tell;
use crate::control::report::Backup as Written;
use crate::control::{ControlRequest, client};
use crate::hex;
use crate::peers::reseed::{self, Reseeded};
use anyhow::{Context, Error, anyhow, bail};
use clap::Args;
use proto::cluster::Role;

use serde_json::json;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Write what the cluster has agreed on to a file: tenants, keys (as hashes), nodes, models
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster backup cluster.backup
  cluster backup \"/backups/cluster-$(date +%F).backup\" --json")]
pub struct Backup {
    /// A file that does not exist yet; it will be readable by its owner only
    file: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"file", "bytes", "index"}
    #[arg(long)]
    json: bool,
}

/// Make a cluster of one out of a backup: tenants and keys stay, nodes have to join anew
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster restore cluster.backup --data-dir /var/lib/cluster
  cluster up --data-dir /var/lib/cluster")]
pub struct Restore {
    /// What `cluster backup` wrote
    file: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"node", "tenants", "keys", "aside"}
    #[arg(long)]
    json: bool,
}

/// When more than half of the voters are lost for good: make a cluster of one out of what this node still has
///
/// Changes that this node had not heard of are lost. Only when the other voters will never come back: they and this node
/// would otherwise be two clusters that each believe to be the one. The node must not be running.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  cluster recover --data-dir /var/lib/cluster --the-other-voters-are-lost")]
pub struct Recover {
    /// Say that you know
    #[arg(long)]
    the_other_voters_are_lost: bool,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"node", "tenants", "keys", "aside"}
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub fn run(self) -> anyhow::Result<()> {
        let written: Written = client::ask(&self.data_dir.folder()?, &ControlRequest::Backup)?;
        let bytes = hex::decode_all(&written.file).context("the node's answer does not read")?;
        let place = || self.file.display().to_string();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    anyhow!(
                        "{} exists already: name another file, or move that one away",
                        place()
                    )
                }
                io::ErrorKind::NotFound => anyhow!("{}: there is no such folder to write it into", place()),
                _ => Error::new(error).context(place()),
            })?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .with_context(place)?;
        let (count, index) = (bytes.len(), written.index);
        if self.json {
            tell!("{}", json!({"file": self.file, "bytes": count, "index": index}));
        } else {
            tell!(
                "{}: {count} bytes, as of entry {index} of the log",
                self.file.display()
            );
        }
        Ok(())
    }
}

impl Restore {
    pub fn run(self) -> anyhow::Result<()> {
        let reseeded = reseed::restore(&self.file, &self.data_dir.folder()?)?;
        tell(&reseeded, if self.json { Format::Json } else { Format::Words });
        Ok(())
    }
}

impl Recover {
    pub fn run(self) -> anyhow::Result<()> {
        if !self.the_other_voters_are_lost {
            bail!(
                "this makes a new cluster out of this node alone, and what only the other voters knew is lost: when they \
                 will never come back, say so with --the-other-voters-are-lost"
            );
        }
        let reseeded = reseed::recover(&self.data_dir.folder()?)?;
        tell(&reseeded, if self.json { Format::Json } else { Format::Words });
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Format {
    Words,
    Json,
}

fn tell(reseeded: &Reseeded, format: Format) {
    let Reseeded {
        node,
        was,
        tenants,
        keys,
        aside,
    } = reseeded;
    match was {
        Some(Role::Worker) => eprintln!(
            "this node was a worker, which hears of changes after the voters: where the folder of a voter is left, recover that \
             one instead"
        ),
        Some(Role::Voter) | None => {}
    }
    match format {
        Format::Json => {
            tell!(
                "{}",
                json!({"node": node.0, "tenants": tenants, "keys": keys, "aside": aside})
            );
        }
        Format::Words => {
            tell!(
                "node {node} is the only member of the cluster now; {tenants} tenant(s) and {keys} API key(s) are kept"
            );
            if let Some(aside) = aside {
                tell!("what it was before lies in {}", aside.display());
            }
            tell!(
                "start it with `cluster up`, then let the others join with new tokens and empty data folders"
            );
        }
    }
}
