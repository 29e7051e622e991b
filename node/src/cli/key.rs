//! `cluster key`.

use super::data_dir::DataDir;
use super::tell::tell;
use crate::clock;
use crate::control::report::{CreatedKey, KeyStatus, Keys};
use crate::control::{ControlRequest, client};
use clap::{Args, Subcommand};
use serde_json::json;

/// API keys of the running node: make, list, revoke
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Key {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

const EXAMPLES: &str = "\
Examples:
  cluster key create --name laptop
  export CLUSTER_KEY=$(cluster key create)
  cluster key list
  cluster key revoke 2107d8e0b459";

/// Make a key and print it, alone on stdout; it is kept nowhere and cannot be shown again
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster key create --name laptop
  cluster key create --tenant research --json")]
struct Create {
    /// Whose key it is
    #[arg(long, value_name = "NAME", default_value = "default")]
    tenant: String,
    /// What people call it
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"key", "id", "tenant", "name"}
    #[arg(long)]
    json: bool,
}

/// List all keys: their ids, never their secrets
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster key list
  cluster key list --json")]
struct List {
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"keys": [{"id", "tenant", "name", "created_at_secs"}]}
    #[arg(long)]
    json: bool,
}

/// Revoke a key: the node refuses it from now on
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster key revoke 2107d8e0b459
  cluster key revoke \"$CLUSTER_KEY\"")]
struct Revoke {
    /// Its id, or the whole key, whose secret must then be its own
    #[arg(value_name = "ID|KEY")]
    key: String,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"revoked": ID}
    #[arg(long)]
    json: bool,
}

impl Key {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Create(create) => create.run(),
            What::List(list) => list.run(),
            What::Revoke(revoke) => revoke.run(),
        }
    }
}

impl Create {
    fn run(self) -> anyhow::Result<()> {
        let request = ControlRequest::CreateKey {
            tenant: self.tenant,
            name: self.name,
        };
        let created: CreatedKey = client::ask(&self.data_dir.folder()?, &request)?;
        if self.json {
            tell!("{}", serde_json::to_string(&created)?);
        } else {
            tell!("{}", created.key);
            eprintln!(
                "shown once; keep it (revoke it with `cluster key revoke {}`)",
                created.id
            );
        }
        Ok(())
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let found: Keys = client::ask(&self.data_dir.folder()?, &ControlRequest::ListKeys)?;
        if self.json {
            tell!("{}", serde_json::to_string(&found)?);
            return Ok(());
        }
        tell!("{:<14} {:<16} {:<12} NAME", "ID", "TENANT", "AGE");
        found.keys.iter().for_each(print);
        Ok(())
    }
}

fn print(key: &KeyStatus) {
    let age_secs = clock::unix_secs().saturating_sub(key.created_at_secs);
    let (age, name) = (age(age_secs), key.name.as_deref().unwrap_or("-"));
    tell!("{:<14} {:<16} {age:<12} {name}", key.id, key.tenant);
}

/// In the largest unit that fits.
fn age(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..86_400 => format!("{} h", secs / 3600),
        86_400.. => format!("{} d", secs / 86_400),
    }
}

impl Revoke {
    fn run(self) -> anyhow::Result<()> {
        let request = ControlRequest::RevokeKey { key: self.key };
        let id: String = client::ask(&self.data_dir.folder()?, &request)?;
        if self.json {
            tell!("{}", json!({"revoked": id}));
        } else {
            tell!("revoked {id}");
        }
        Ok(())
    }
}
