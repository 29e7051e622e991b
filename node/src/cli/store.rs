//! `cluster store`.

use super::tell::tell;
use crate::config::byte_size::ByteSize;
use crate::store::Store;
use crate::store::collect::{Collected, Removal, removals};
use crate::store::inventory::{FileKind, HeldModel, Inventory};
use crate::up::open_store;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

const EXAMPLES: &str = "\
Examples:
  cluster store list
  cluster store collect --max 50GiB --dry-run";

/// The model store of this host: what it holds, and what may go
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct StoreCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// List models with what they take, those used last first
    #[command(after_help = "Example:\n  cluster store list --json")]
    List(List),
    /// Remove packed weights of models that are gone and, beyond --max, what was used longest ago; never what is in use
    #[command(
        after_help = "Examples:\n  cluster store collect --dry-run\n  cluster store collect --max 50GiB"
    )]
    Collect(Collect),
}

#[derive(Args, Debug)]
struct Place {
    /// Where models are kept [default: ~/.cache/cluster/store]
    #[arg(long, value_name = "DIR", env = "CLUSTER_STORE")]
    store: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Print JSON: {"models": [{"sha256", "specs", "bytes", "partial_bytes", "packed_bytes", "last_used_secs", "in_use"}],
    /// "bytes"}
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Collect {
    #[command(flatten)]
    place: Place,
    /// What may be left, as in 50GiB [default: no bound]
    #[arg(long, value_name = "SIZE", env = "CLUSTER_STORE_MAX")]
    max: Option<ByteSize>,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: {"dry_run", "removed": [{"path", "bytes", "reason"}], "bytes_removed", "bytes_left"}
    #[arg(long)]
    json: bool,
}

impl StoreCommand {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::List(list) => list.run(),
            What::Collect(collect) => collect.run(),
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let inventory = self.place.open()?.inventory()?;
        let bytes = inventory.bytes();
        let mut models = inventory.models;
        models.sort_by_key(|model| Reverse((model.in_use, model.last_used)));
        if self.json {
            let models: Vec<Value> = models.iter().map(described).collect();
            tell!("{}", json!({"models": models, "bytes": bytes}));
            return Ok(());
        }
        let now = SystemTime::now();
        tell!("{:>12} {:>12}  {:<14} MODEL", "FILE", "PACKED", "USED");
        for model in &models {
            tell!(
                "{:>12} {:>12}  {:<14} {}",
                ByteSize::new(model.bytes_of(FileKind::Model)).to_string(),
                ByteSize::new(model.bytes_of(FileKind::Packed)).to_string(),
                used(model, now),
                name(model)
            );
        }
        tell!("{:>12} in all", ByteSize::new(bytes).to_string());
        Ok(())
    }
}

impl Collect {
    fn run(self) -> anyhow::Result<()> {
        let store = self.place.open()?;
        let bytes_max = self.max.map(ByteSize::bytes);
        let collected = match self.dry_run {
            true => foretold(&store.inventory()?, bytes_max),
            false => store.collect(bytes_max)?,
        };
        match self.json {
            true => tell!("{}", self.described(&collected)),
            false => tell(&collected, if self.dry_run { "would remove" } else { "removed" }),
        }
        match collected.failed.into_iter().next() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn described(&self, collected: &Collected) -> Value {
        let removed: Vec<Value> = collected.removed.iter().map(removal_described).collect();
        json!({
            "dry_run": self.dry_run,
            "removed": removed,
            "bytes_removed": bytes_of(&collected.removed),
            "bytes_left": collected.bytes_left,
        })
    }
}

impl Place {
    /// A place that is not there is no store, and none is made of it.
    fn open(&self) -> anyhow::Result<Store> {
        let folder = super::store_folder(self.store.clone())?;
        anyhow::ensure!(
            folder.is_dir(),
            "{} is no folder: `cluster pull` makes a store, and --store names another",
            folder.display()
        );
        Ok(open_store(&folder)?)
    }
}

/// What a collection would come to.
fn foretold(inventory: &Inventory, bytes_max: Option<u64>) -> Collected {
    let removed = removals(inventory, bytes_max);
    Collected {
        bytes_left: inventory.bytes() - bytes_of(&removed),
        removed,
        failed: Vec::new(),
    }
}

fn bytes_of(removed: &[Removal]) -> u64 {
    removed.iter().map(|removal| removal.file.bytes).sum()
}

fn tell(collected: &Collected, done: &str) {
    for removal in &collected.removed {
        let (path, bytes) = (removal.file.path.display(), ByteSize::new(removal.file.bytes));
        tell!("{done} {path}, {bytes}: {}", removal.reason.words());
    }
    tell!(
        "{done} {} in all; {} are left",
        ByteSize::new(bytes_of(&collected.removed)),
        ByteSize::new(collected.bytes_left)
    );
}

fn described(model: &HeldModel) -> Value {
    let last_used = model.last_used.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "sha256": model.sha256,
        "specs": model.specs,
        "bytes": model.bytes_of(FileKind::Model),
        "partial_bytes": model.bytes_of(FileKind::Partial),
        "packed_bytes": model.bytes_of(FileKind::Packed),
        "last_used_secs": last_used.as_secs(),
        "in_use": model.in_use,
    })
}

fn removal_described(removal: &Removal) -> Value {
    json!({
        "path": removal.file.path.display().to_string(),
        "bytes": removal.file.bytes,
        "reason": removal.reason.words(),
    })
}

/// What led to it, or how its digest begins; and how much of it has come, where it is not whole.
fn name(model: &HeldModel) -> String {
    let name = match model.specs.is_empty() {
        true => format!("sha256 {}…", &model.sha256[..12]),
        false => model.specs.join(", "),
    };
    match model.bytes_of(FileKind::Partial) {
        0 => name,
        bytes => format!("{name} (on its way: {} so far)", ByteSize::new(bytes)),
    }
}

fn used(model: &HeldModel, now: SystemTime) -> String {
    if model.in_use {
        return "now".to_owned();
    }
    let secs = now.duration_since(model.last_used).unwrap_or_default().as_secs();
    match secs {
        0..3600 => format!("{} min ago", secs / 60),
        3600..86_400 => format!("{} h ago", secs / 3600),
        _ => format!("{} days ago", secs / 86_400),
    }
}
