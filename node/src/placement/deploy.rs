//! `cluster deploy`, as the node sees it that was asked: it reads the model, tells the cluster, and says how far things are.
//!
//! Reading a model can take minutes, so the command asks again and again, and gets the same question answered further.

use super::explanations::Explanations;
use super::plan;
use super::profile::LEVEL;
use crate::actors::board::{Board, Phase};
use crate::clock;
use crate::config::Config;
use crate::control::ControlAnswer;
use crate::control::report::{DeployReport, DeployStep};
use crate::raft::Links;
use crate::shard_host::prepare::{BLOCK_TOKENS, ModelFile};
use crate::state::NodeState;
use crate::store::spec::NamedSpec;
use crate::store::{Check, Store, Use};
use coordinator::cluster_state::Rejected;
use proto::ReplicaId;
use proto::cluster::{ClusterCommand, Deployment, ModelRecord, Undeploy};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A member that was not heard for so long is not waited for.
const SILENT_AFTER: Duration = Duration::from_secs(2);

pub struct Deploying {
    pub state: Arc<NodeState>,
    pub store: Arc<Store>,
    pub config: Arc<Config>,
    pub board: Board,
    pub explanations: Explanations,
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
pub struct Wish {
    /// `[NAME=]SPEC`.
    pub model: String,
    pub replicas: u32,
}

impl Deploying {
    pub fn new(
        state: Arc<NodeState>,
        store: Arc<Store>,
        config: Arc<Config>,
        board: Board,
        explanations: Explanations,
    ) -> Deploying {
        Deploying {
            state,
            store,
            config,
            board,
            explanations,
            jobs: Jobs::default(),
        }
    }

    /// What would be placed where, and why; nothing is changed.
    pub async fn plan(&self, wish: &Wish) -> ControlAnswer<DeployReport> {
        self.is_understood().await?;
        let Some(read) = self.read(wish)? else {
            return Ok(DeployReport::at(DeployStep::Reading));
        };
        self.state.linearize().await.map_err(|error| error.to_string())?;
        if self.is_anyone_measuring() {
            return Ok(DeployReport::at(DeployStep::Measuring));
        }
        let reasons = plan::reasons(&self.state.applied(), &read.deployment)?;
        Ok(DeployReport {
            reasons,
            ..DeployReport::at(DeployStep::Planned)
        })
    }

    pub async fn deploy(&self, wish: &Wish) -> ControlAnswer<DeployReport> {
        self.is_understood().await?;
        let Some(read) = self.read(wish)? else {
            return Ok(DeployReport::at(DeployStep::Reading));
        };
        let deployment = Deployment {
            replicas: wish.replicas,
            ..read.deployment.clone()
        };
        let name = deployment.model.name.clone();
        let known = self.state.applied().deployment(&name).cloned();
        if known
            .is_none_or(|known| known.replicas != deployment.replicas || !is_the_same(&known, &deployment))
        {
            let command = ClusterCommand::Deploy(Box::new(deployment));
            self.state
                .commit(command)
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(self.progress(&name))
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

    /// A model that somebody has read already, as one that this node was to serve and cannot carry.
    pub async fn tell(&self, deployment: Deployment) -> ControlAnswer<()> {
        let command = ClusterCommand::Deploy(Box::new(deployment));
        self.state
            .commit(command)
            .await
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    /// By every member: before a model is read for nothing, or profiles are waited for that nobody may tell.
    async fn is_understood(&self) -> ControlAnswer<()> {
        if self.state.applied().feature_level() < LEVEL {
            self.state.linearize().await.map_err(|error| error.to_string())?;
        }
        let level = self.state.applied().feature_level();
        match level < LEVEL {
            true => Err(Rejected::LevelTooLow { needed: LEVEL, level }.to_string()),
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

    fn progress(&self, name: &str) -> DeployReport {
        let applied = self.state.applied();
        let placed: Vec<_> = applied
            .placements()
            .filter(|placement| placement.model == name)
            .cloned()
            .collect();
        let wanted = applied
            .deployment(name)
            .map_or(0, |deployment| deployment.replicas);
        let reasons = placed.iter().map(plan::words).collect();
        drop(applied);
        let ready = placed
            .iter()
            .filter(|placement| self.is_ready(placement.replica))
            .count();
        let step = if ready as u32 >= wanted {
            DeployStep::Serving
        } else if placed.len() as u32 >= wanted {
            DeployStep::Starting
        } else {
            DeployStep::Waiting
        };
        DeployReport {
            reasons,
            waits_for: self.explanations.find(name),
            ..DeployReport::at(step)
        }
    }

    fn is_ready(&self, replica: ReplicaId) -> bool {
        let views = self.board.views();
        let view = views.get(&replica);
        view.is_some_and(|view| matches!(view.phase, Phase::Ready(_)))
    }

    /// `None`: it is being read. A failure is told once; then it is tried again.
    fn read(&self, wish: &Wish) -> ControlAnswer<Option<Arc<ReadModel>>> {
        let named: NamedSpec = wish
            .model
            .parse()
            .map_err(|error: crate::store::spec::SpecError| error.to_string())?;
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
        let (store, config) = (Arc::clone(&self.store), Arc::clone(&self.config));
        tokio::task::spawn_blocking(move || {
            let job = match read(&store, &named, &config) {
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

/// But for how many copies there are to be.
fn is_the_same(known: &Deployment, asked: &Deployment) -> bool {
    known.model.digest == asked.model.digest && known.shape == asked.shape
}

/// Fetches and hashes where it must.
fn read(store: &Store, named: &NamedSpec, config: &Config) -> anyhow::Result<ReadModel> {
    let (stored, in_use) = store.take(&named.spec, Check::Length)?;
    let file = ModelFile::map(&stored.path, config.kv_cache.value.format())?;
    let gguf = file.parse()?;
    let model = file.config(&gguf)?;
    let shape = shard::model_shape(&model, &gguf, BLOCK_TOKENS);
    let shape = shape.map_err(|error| file.load_error(error))?;
    Ok(ReadModel {
        deployment: Deployment {
            model: ModelRecord {
                name: named.name.clone(),
                spec: named.spec.to_string(),
                digest: stored.digest,
                bytes: stored.bytes,
                added_at_secs: clock::unix_secs(),
            },
            manifest: [0; 32],
            shape,
            replicas: 1,
        },
        _in_use: in_use,
    })
}
