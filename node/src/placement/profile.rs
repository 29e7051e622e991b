//! What this node can do, measured once and told to the cluster: memory, rates, links.

use crate::bench::machine::Rates;
use crate::config::Config;
use crate::os;
use crate::peers::probe;
use crate::state::NodeState;
use crate::transport::{Class, Peers};
use anyhow::{Context, bail};
use proto::NodeId;
use proto::cluster::{ClusterCommand, LinkProfile, NodeProfile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::sleep;

/// From this level on the cluster knows of profiles, and of models that it places.
pub const LEVEL: u32 = 2;
const LOOK_EVERY: Duration = Duration::from_millis(500);
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Of what is free, where nothing was said: the rest is for files that are read, and for other programs.
const SHARE_PERCENT: u64 = 90;

/// Measures this node, and tells the cluster whenever something has changed.
pub struct Profiling {
    pub state: Arc<NodeState>,
    pub peers: Peers,
    pub config: Arc<Config>,
    /// For models that are placed here.
    pub memory_bytes: u64,
}

/// What models may take that are placed here, beside what this node serves by its own choice.
pub fn memory_bytes(config: &Config, taken_bytes: u64) -> u64 {
    let free = os::memory::available_bytes();
    let bytes = match config.memory.value {
        Some(given) => given.bytes().min(free),
        None => free / 100 * SHARE_PERCENT,
    };
    bytes.saturating_sub(taken_bytes)
}

impl Profiling {
    /// For as long as the node lives.
    pub async fn keep(self) {
        let rates = self.rates().await;
        let mut links: BTreeMap<NodeId, LinkProfile> = BTreeMap::new();
        let mut told = None;
        loop {
            if self.state.applied().feature_level() >= LEVEL {
                self.measure_links(&mut links).await;
                let profile = self.profile(&rates, &links);
                if told.as_ref() != Some(&profile) && self.tell(&profile).await {
                    told = Some(profile);
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn profile(&self, rates: &Rates, links: &BTreeMap<NodeId, LinkProfile>) -> NodeProfile {
        NodeProfile {
            node: self.state.node(),
            memory_bytes: self.memory_bytes,
            threads: rates.threads as u32,
            read_bytes_per_sec: rates.read_bytes_per_sec as u64,
            multiply_adds_per_sec: rates.multiply_adds_per_sec as u64,
            links: links.values().copied().collect(),
        }
    }

    async fn tell(&self, profile: &NodeProfile) -> bool {
        let command = ClusterCommand::Profile(Box::new(profile.clone()));
        match self.state.commit(command).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "what this node can do is told later");
                sleep(TRY_AGAIN).await;
                false
            }
        }
    }

    /// Of members that have come; what is known of those who have left is forgotten.
    async fn measure_links(&self, links: &mut BTreeMap<NodeId, LinkProfile>) {
        let own = self.state.node();
        let members: Vec<NodeId> = {
            let applied = self.state.applied();
            let members = applied.members().map(|member| member.node);
            members.filter(|node| *node != own).collect()
        };
        links.retain(|node, _| members.contains(node));
        for to in members {
            if links.contains_key(&to) {
                continue;
            }
            match probe::measure(&self.peers, to).await {
                Ok(bytes_per_sec) => {
                    let round_trip_ns = self.round_trip_ns(to);
                    let link = LinkProfile {
                        to,
                        bytes_per_sec,
                        round_trip_ns,
                    };
                    links.insert(to, link);
                }
                Err(error) => tracing::debug!(node = %to, %error, "its link is measured later"),
            }
        }
    }

    fn round_trip_ns(&self, to: NodeId) -> u64 {
        let links = self.peers.links();
        let of_node = links.iter().filter(|link| link.node == to);
        let trips = of_node.filter(|link| link.class != Class::Activations);
        let least = trips.map(|link| link.round_trip).min().unwrap_or_default();
        u64::try_from(least.as_nanos()).unwrap_or(u64::MAX)
    }

    /// As measured by an earlier run with the same program and threads, or now.
    async fn rates(&self) -> Rates {
        let path = self.config.data_dir.value.join("machine.json");
        let asked = Asked::of(&self.config);
        if let Some(kept) = recall(&path, &asked) {
            return kept;
        }
        loop {
            match measured(&asked).await {
                Ok(rates) => {
                    remember(&path, asked, rates);
                    return rates;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "what this machine can compute could not be measured");
                }
            }
            sleep(TRY_AGAIN).await;
        }
    }
}

/// What a measurement holds for.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Asked {
    version: String,
    threads: usize,
    cpu_level: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    asked: Asked,
    rates: Rates,
}

impl Asked {
    fn of(config: &Config) -> Asked {
        Asked {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            threads: config.threads.value,
            cpu_level: config.cpu_level.value.clone(),
        }
    }
}

/// In a process of its own, which computes below the control plane.
async fn measured(asked: &Asked) -> anyhow::Result<Rates> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "machine", "--json", "--threads"]);
    command.arg(asked.threads.to_string());
    if let Some(level) = &asked.cpu_level {
        command.args(["--cpu-level", level]);
    }
    command.kill_on_drop(true);
    let output = command.output().await.context("`cluster bench machine`")?;
    if !output.status.success() {
        bail!(
            "`cluster bench machine`: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn recall(path: &Path, asked: &Asked) -> Option<Rates> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (kept.asked == *asked).then_some(kept.rates)
}

/// A cache: without it, the next run measures again.
fn remember(path: &PathBuf, asked: Asked, rates: Rates) {
    let kept = serde_json::to_vec(&Kept { asked, rates }).expect("numbers are JSON");
    if let Err(error) = std::fs::write(path, kept) {
        tracing::debug!(%error, "what was measured of this machine is not kept");
    }
}
