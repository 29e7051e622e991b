//! `cluster deploy`, as the node sees it that was asked: it reads the model, tells the cluster, and says how far things are.
//!
//! Reading a model can take minutes, so the command asks again and again, and gets the same question answered further.

use super::outlook::{self, OutlookBoard};
use super::plan;
use super::profile::Plans;
use crate::actors::board::Phase;
use crate::actors::gateway::RouterGateway;
use crate::clock;
use crate::config::Config;
use crate::control::ControlAnswer;
use crate::control::report::{DeployReport, DeployStep};
use crate::peers::Served;
use crate::peers::weights::Shelf;
use crate::raft::Links;
use crate::shard_host::prepare::{BLOCK_TOKENS, ModelFile, PROCESS_BYTES};
use crate::state::NodeState;
use crate::store::spec::{NamedSpec, SpecError, may_be_a_name};
use crate::store::{Check, Store, Use};
use coordinator::cluster_state::Rejected;
use coordinator::placer::layout::NoFit;
use proto::ReplicaId;
use proto::cluster::{ClusterCommand, Deployment, ModelRecord, PLACING_LEVEL, Placement, Undeploy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A member that was not heard for so long is not waited for.
const SILENT_AFTER: Duration = Duration::from_secs(2);

pub struct Deploying {
    pub state: Arc<NodeState>,
    pub shelf: Shelf,
    pub config: Arc<Config>,
    pub gateway: Arc<RouterGateway>,
    pub outlook: OutlookBoard,
    pub plans: Plans,
    jobs: Jobs,
}

type Jobs = Arc<Mutex<BTreeMap<String, Job>>>;

/// A model on its way, by what was asked for.
enum Job {
    Reading,
    Failed(String),
    Read(Arc<ReadModel>),
}

struct ReadModel {
    deployment: Deployment,
    /// This node is where others get it from.
    _in_use: Use,
}

/// What a person wants.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct DeployWish {
    /// `[NAME=]SPEC`, or the name of one that is deployed.
    pub model: String,
    /// `None`: as many as it has been deployed with, or one.
    pub replicas: Option<u32>,
    /// Tensor parallel ranks of every stage; `None`: as it is deployed already, or as the node was told at its start.
    pub ranks: Option<u32>,
}

impl Deploying {
    pub fn new(
        state: Arc<NodeState>,
        shelf: Shelf,
        config: Arc<Config>,
        gateway: Arc<RouterGateway>,
        outlook: OutlookBoard,
    ) -> Deploying {
        Deploying {
            state,
            shelf,
            config,
            gateway,
            outlook,
            plans: Plans::default(),
            jobs: Jobs::default(),
        }
    }

    /// What would be placed where, and why; nothing is changed.
    pub async fn plan(&self, wish: &DeployWish) -> ControlAnswer<DeployReport> {
        self.is_understood().await?;
        self.plans.ask();
        let Some(asked) = self.asked(wish).await? else {
            return Ok(DeployReport::at(DeployStep::Reading));
        };
        self.state.linearize().await.map_err(|error| error.to_string())?;
        if self.is_anyone_measuring() {
            return Ok(DeployReport::at(DeployStep::Measuring));
        }
        let wanted = self.wanted(wish, asked)?;
        let outlook = outlook::ask(&self.state, &self.outlook).await?;
        let reasons = plan::foreseen(&self.state.applied(), &outlook, &wanted)?;
        // A file may be another one by the next time.
        self.lock().remove(&wish.model);
        Ok(DeployReport {
            reasons,
            ..DeployReport::at(DeployStep::Planned)
        })
    }

    pub async fn deploy(&self, wish: &DeployWish) -> ControlAnswer<DeployReport> {
        self.is_understood().await?;
        let Some(asked) = self.asked(wish).await? else {
            return Ok(DeployReport::at(DeployStep::Reading));
        };
        let deployment = self.wanted(wish, asked)?;
        let name = deployment.model.name.clone();
        let known = self.state.applied().deployment(&name).cloned();
        if known.is_none_or(|known| !is_the_same(&known, &deployment)) {
            if self.ends_placed(&deployment) {
                if self.is_anyone_measuring() {
                    return Ok(DeployReport::at(DeployStep::Measuring));
                }
                self.foresee(&deployment).await?;
            }
            let command = ClusterCommand::Deploy(Box::new(deployment));
            self.state
                .commit(command)
                .await
                .map_err(|error| error.to_string())?;
        }
        let progress = self.progress(&name).await;
        if progress.step == DeployStep::Serving {
            self.lock().remove(&wish.model);
        }
        Ok(progress)
    }

    /// Is something placed that would have to be cut anew?
    fn ends_placed(&self, deployment: &Deployment) -> bool {
        let applied = self.state.applied();
        let mut placed = applied.placements();
        placed.any(|placed| placed.model == deployment.model.name) && !applied.leaves_placed(deployment)
    }

    /// Nothing that serves ends for a cut that there is no room for.
    async fn foresee(&self, deployment: &Deployment) -> ControlAnswer<()> {
        let outlook = outlook::ask(&self.state, &self.outlook).await?;
        plan::foreseen(&self.state.applied(), &outlook, deployment)
            .map(drop)
            .map_err(|reason| format!("{reason}\nwhat is placed stays as it is"))
    }

    fn wanted(&self, wish: &DeployWish, asked: Deployment) -> ControlAnswer<Deployment> {
        let applied = self.state.applied();
        let known = applied.deployment(&asked.model.name);
        let ranks = wish.ranks.or(known.map(|known| known.ranks));
        let ranks = ranks.unwrap_or(self.config.tp.value as u32);
        let replicas = wish.replicas.or(known.map(|known| known.replicas));
        // The cluster would refuse it too, with words about all that a shape must be.
        let heads = asked.shape.heads;
        if ranks > heads {
            return Err(NoFit::RanksBeyondHeads { ranks, heads }.to_string());
        }
        Ok(Deployment {
            replicas: replicas.unwrap_or(1),
            ranks,
            ..asked
        })
    }

    /// What is deployed under this name, or what the file says that is meant; `None`: it is being read.
    async fn asked(&self, wish: &DeployWish) -> ControlAnswer<Option<Deployment>> {
        let is_name = may_be_a_name(&wish.model);
        if is_name && let Some(known) = self.deployed(&wish.model).await? {
            return Ok(Some(known));
        }
        let read = self.read(wish).map_err(|error| match is_name {
            true => format!("{error}; and no model that is deployed has this name"),
            false => error,
        });
        Ok(read?.map(|read| read.deployment.clone()))
    }

    /// The leader is asked only where this node knows of no such deployment: whoever waits asks again and again.
    async fn deployed(&self, name: &str) -> ControlAnswer<Option<Deployment>> {
        let known = || self.state.applied().deployment(name).cloned();
        if let Some(known) = known() {
            return Ok(Some(known));
        }
        self.state.linearize().await.map_err(|error| error.to_string())?;
        Ok(known())
    }

    pub async fn undeploy(&self, name: String) -> ControlAnswer<()> {
        let command = ClusterCommand::Undeploy(Box::new(Undeploy { model: name.clone() }));
        self.state
            .commit(command)
            .await
            .map_err(|error| error.to_string())?;
        self.lock().retain(|_, job| match job {
            Job::Read(read) => read.deployment.model.name != name,
            Job::Reading | Job::Failed(_) => true,
        });
        Ok(())
    }

    /// By every member: before a model is read for nothing, or profiles are waited for that nobody may tell.
    async fn is_understood(&self) -> ControlAnswer<()> {
        if self.state.applied().feature_level() < PLACING_LEVEL {
            self.state.linearize().await.map_err(|error| error.to_string())?;
        }
        let level = self.state.applied().feature_level();
        match level < PLACING_LEVEL {
            true => Err(Rejected::LevelTooLow {
                needed: PLACING_LEVEL,
                level,
            }
            .to_string()),
            false => Ok(()),
        }
    }

    /// A node that has joined just now says soon what it can carry.
    fn is_anyone_measuring(&self) -> bool {
        let own = self.state.node();
        let applied = self.state.applied();
        let unmeasured = applied.members().map(|member| member.node);
        let mut unmeasured = unmeasured.filter(|node| applied.profile(*node).is_none());
        let links = &self.state.member.links;
        unmeasured.any(|node| node == own || links.silent(node) < SILENT_AFTER)
    }

    async fn progress(&self, name: &str) -> DeployReport {
        let (placed, wanted) = {
            let applied = self.state.applied();
            let of_model = applied.placements().filter(|placement| placement.model == name);
            let deployment = applied.deployment(name);
            let wanted = deployment.map_or(0, |deployment| deployment.replicas);
            (of_model.cloned().collect::<Vec<_>>(), wanted)
        };
        let reasons = placed.iter().map(plan::words).collect();
        let ready = placed
            .iter()
            .filter(|placement| self.is_ready(placement.replica))
            .count();
        let is_offered = wanted == 0 || self.gateway.knows(name);
        let step = if ready as u32 >= wanted && is_offered {
            DeployStep::Serving
        } else if placed.len() as u32 >= wanted {
            DeployStep::Starting
        } else {
            DeployStep::Waiting
        };
        DeployReport {
            reasons,
            waits_for: match step {
                DeployStep::Waiting => self.obstacle(name).await,
                DeployStep::Starting => self.hindrance(&placed),
                DeployStep::Reading | DeployStep::Measuring | DeployStep::Planned | DeployStep::Serving => {
                    None
                }
            },
            ..DeployReport::at(step)
        }
    }

    /// As the placer says it, or would as soon as it looks.
    async fn obstacle(&self, name: &str) -> Option<String> {
        let outlook = match outlook::ask(&self.state, &self.outlook).await {
            Ok(outlook) => outlook,
            Err(reason) => return Some(reason),
        };
        let told = outlook::obstacle(&outlook, name).map(str::to_owned);
        told.or_else(|| {
            let applied = self.state.applied();
            plan::reasons(&applied, &outlook, applied.deployment(name)?).err()
        })
    }

    /// Of the first replica that has failed to start, or waits for another node.
    fn hindrance(&self, placed: &[Placement]) -> Option<String> {
        let views = self.gateway.board.views();
        let mut hindered = placed.iter().filter_map(|placement| {
            let phase = &views.get(&placement.replica)?.phase;
            let is_hindered = matches!(phase, Phase::Waiting { .. } | Phase::Down { .. });
            is_hindered.then(|| format!("replica {}: {}", placement.replica, phase.in_words()))
        });
        hindered.next()
    }

    fn is_ready(&self, replica: ReplicaId) -> bool {
        let views = self.gateway.board.views();
        let view = views.get(&replica);
        view.is_some_and(|view| matches!(view.phase, Phase::Ready(_)))
    }

    /// `None`: it is being read. A failure is told once; then it is tried again.
    fn read(&self, wish: &DeployWish) -> ControlAnswer<Option<Arc<ReadModel>>> {
        let named: NamedSpec = wish.model.parse().map_err(|error: SpecError| error.to_string())?;
        let mut jobs = self.lock();
        match jobs.get(&wish.model) {
            Some(Job::Read(read)) => return Ok(Some(Arc::clone(read))),
            Some(Job::Reading) => return Ok(None),
            Some(Job::Failed(reason)) => {
                let reason = reason.clone();
                jobs.remove(&wish.model);
                return Err(reason);
            }
            None => {}
        }
        jobs.insert(wish.model.clone(), Job::Reading);
        let (jobs, asked) = (Arc::clone(&self.jobs), wish.model.clone());
        let (shelf, config) = (self.shelf.clone(), Arc::clone(&self.config));
        tokio::task::spawn_blocking(move || {
            let job = match read(shelf.store(), &named, &config) {
                Ok(read) => Job::Read(Arc::new(read)),
                Err(error) => Job::Failed(format!("{error:#}")),
            };
            let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.insert(asked, job);
        });
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// But for when it was added.
fn is_the_same(known: &Deployment, asked: &Deployment) -> bool {
    known.model.digest == asked.model.digest
        && known.shape == asked.shape
        && known.replicas == asked.replicas
        && known.ranks == asked.ranks
        && known.kv_cache == asked.kv_cache
}

/// Fetches and hashes where it must.
fn read(store: &Store, named: &NamedSpec, config: &Config) -> anyhow::Result<ReadModel> {
    let (stored, in_use) = store.take(&named.spec, Check::Touched)?;
    let file = ModelFile::map(&stored.path, config.kv_cache.value.format())?;
    let gguf = file.parse()?;
    let model = file.config(&gguf)?;
    let shape = shard::model_shape(&model, &gguf, BLOCK_TOKENS);
    let mut shape = shape.map_err(|error| file.load_error(error))?;
    shape.common_bytes += PROCESS_BYTES;
    Ok(ReadModel {
        deployment: Deployment {
            model: ModelRecord {
                name: named.name.clone(),
                spec: named.spec.to_string(),
                digest: stored.digest,
                bytes: stored.bytes,
                added_at_secs: clock::unix_secs(),
            },
            manifest: store.manifest(&stored)?.digest(),
            shape,
            replicas: 1,
            ranks: 1,
            kv_cache: config.kv_cache.value.into(),
        },
        _in_use: in_use,
    })
}
