//! What this node can do, measured once and told to the cluster: memory, rates, links.

use crate::actors::board::{Board, Phase, ReplicaView, Where};
use crate::bench::machine::Rates;
use crate::config::Config;
use crate::os;
use crate::peers::probe;
use crate::state::NodeState;
use crate::transport::{Class, Peers};
use anyhow::{Context, bail};
use proto::NodeId;
use proto::cluster::{ClusterCommand, LinkProfile, NodeProfile, PLACING_LEVEL};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::sleep;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Of what is free, where nothing was said: the rest is for files that are read, and for other programs.
const SHARE_PERCENT: u64 = 90;
/// Less of a difference of memory than this is none.
const STEADY_PERCENT: u64 = 10;
/// After a node could not be reached.
const PROBE_AGAIN: Duration = Duration::from_secs(30);

/// Measures this node, and tells the cluster whenever something has changed.
pub struct Profiling {
    pub state: Arc<NodeState>,
    pub peers: Peers,
    pub config: Arc<Config>,
    pub board: Board,
    pub plans: Plans,
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
        self.until_wanted().await;
        self.until_own_models_are_up().await;
        let rates = self.rates().await;
        let mut links = Links::default();
        let mut told = None;
        loop {
            if self.state.applied().feature_level() >= PLACING_LEVEL {
                let profile = self.profile(&rates, &links.measured);
                if told.as_ref() != Some(&profile) && self.tell(&profile).await {
                    told = Some(profile);
                }
                self.measure_links(&mut links).await;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// A node that is alone and places nothing has no use for it.
    async fn until_wanted(&self) {
        let is_wanted = || {
            let applied = self.state.applied();
            let is_alone = applied.members().count() == 1;
            !is_alone || applied.deployments().next().is_some() || self.plans.are_asked_for()
        };
        while !is_wanted() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// What loads beside a measurement would be in its result.
    async fn until_own_models_are_up(&self) {
        let is_loading = |view: &ReplicaView| {
            let is_coming = matches!(view.phase, Phase::Starting | Phase::Loading { .. });
            view.place == Where::Here && is_coming
        };
        while self.board.views().values().any(is_loading) {
            sleep(LOOK_EVERY).await;
        }
    }

    fn profile(&self, rates: &Rates, links: &BTreeMap<NodeId, LinkProfile>) -> NodeProfile {
        NodeProfile {
            node: self.state.node(),
            memory_bytes: self.steady_memory_bytes(),
            threads: rates.threads as u32,
            rates: rates.of_node(),
            links: links.values().copied().collect(),
        }
    }

    /// As told before where it is about the same: what is free differs a little from start to start, and what is placed
    /// here is to stay.
    fn steady_memory_bytes(&self) -> u64 {
        let applied = self.state.applied();
        let before = applied
            .profile(self.state.node())
            .map(|profile| profile.memory_bytes);
        let slack = self.memory_bytes / 100 * STEADY_PERCENT;
        match before {
            Some(before)
                if self.config.memory.value.is_none() && before.abs_diff(self.memory_bytes) <= slack =>
            {
                before
            }
            Some(_) | None => self.memory_bytes,
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
    async fn measure_links(&self, links: &mut Links) {
        let own = self.state.node();
        let members: Vec<NodeId> = {
            let applied = self.state.applied();
            let members = applied.members().map(|member| member.node);
            members.filter(|node| *node != own).collect()
        };
        links.measured.retain(|node, _| members.contains(node));
        for to in members {
            if links.measured.contains_key(&to) || links.rests(to) {
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
                    links.measured.insert(to, link);
                }
                Err(error) => {
                    tracing::debug!(node = %to, %error, "its link is measured later");
                    links.failed.insert(to, Instant::now());
                }
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
                    remember(&path, asked, &rates);
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

/// Whether somebody wants to know what would be placed where. Cheap to copy; all copies say the same.
#[derive(Clone, Default)]
pub struct Plans(Arc<AtomicBool>);

impl Plans {
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn are_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// To other members.
#[derive(Default)]
struct Links {
    measured: BTreeMap<NodeId, LinkProfile>,
    /// When it was last tried in vain.
    failed: BTreeMap<NodeId, Instant>,
}

impl Links {
    fn rests(&self, node: NodeId) -> bool {
        let failed = self.failed.get(&node);
        failed.is_some_and(|failed| failed.elapsed() < PROBE_AGAIN)
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
fn remember(path: &PathBuf, asked: Asked, rates: &Rates) {
    let rates = rates.clone();
    let kept = serde_json::to_vec(&Kept { asked, rates }).expect("numbers are JSON");
    if let Err(error) = std::fs::write(path, kept) {
        tracing::debug!(%error, "what was measured of this machine is not kept");
    }
}
