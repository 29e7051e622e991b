//! `cluster tenant`.

use super::data_dir::DataDir;
use super::tell::tell;
use crate::control::report::Tenants;
use crate::control::{ControlRequest, client};
use clap::{Args, Subcommand};
use serde_json::json;

/// Tenants of the running node: each has its own keys, its own turn in the queue and its own prefix cache
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Tenant {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Add a tenant; give it a key with `cluster key create --tenant NAME`
    #[command(after_help = "Example:\n  cluster tenant add research")]
    Add(Named),
    /// List all tenants
    #[command(after_help = "Example:\n  cluster tenant list --json")]
    List(List),
    /// Remove a tenant that has no keys any more
    #[command(name = "rm", after_help = "Example:\n  cluster tenant rm research")]
    Remove(Named),
}

const EXAMPLES: &str = "\
Examples:
  cluster tenant add research
  cluster key create --tenant research
  cluster tenant list";

#[derive(Args, Debug)]
struct Named {
    /// The tenant
    name: String,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"tenant": NAME}
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"tenants": [{"name", "keys"}]}
    #[arg(long)]
    json: bool,
}

impl Tenant {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Add(named) => {
                let name = named.name.clone();
                named.run("added", ControlRequest::AddTenant { name })
            }
            What::List(list) => list.run(),
            What::Remove(named) => {
                let name = named.name.clone();
                named.run("removed", ControlRequest::RemoveTenant { name })
            }
        }
    }
}

impl Named {
    fn run(self, done: &str, request: ControlRequest) -> anyhow::Result<()> {
        let () = client::ask(&self.data_dir.folder()?, &request)?;
        if self.json {
            tell!("{}", json!({"tenant": self.name}));
        } else {
            tell!("{done} {}", self.name);
        }
        Ok(())
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let found: Tenants = client::ask(&self.data_dir.folder()?, &ControlRequest::ListTenants)?;
        if self.json {
            tell!("{}", serde_json::to_string(&found)?);
            return Ok(());
        }
        tell!("{:<24} KEYS", "TENANT");
        for tenant in found.tenants {
            tell!("{:<24} {}", tenant.name, tenant.keys);
        }
        Ok(())
    }
}
