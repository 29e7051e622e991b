//! What was placed on this node, running: follows the log, starts what is new, and ends what has gone.

use super::file::{Came, ModelFiles, PlacedFile, Rest, is_damage};
use crate::actors::board::{Board, Phase, Where};
use crate::actors::gateway::RouterGateway;
use crate::actors::machine::Mailbox;
use crate::actors::router::RouterMessage;
use crate::config::Config;
use crate::constraint::checker::Checker;
use crate::gateway::{Gateway, ServedModel};
use crate::peers::Desk;
use crate::peers::weights::Shelf;
use crate::raft::AppliedState;
use crate::shard_host::epochs::Epochs;
use crate::shard_host::hub::Hub;
use crate::shard_host::pipeline::Pipeline;
use crate::shard_host::setup::{FileState, LinkMember, PlacedSetup, ShardSetup};
use crate::shard_host::stage::LinkSource;
use crate::shard_host::stage_keeper::StageKeeper;
use crate::shard_host::supervisor::{FirstFailure, FirstStart, ReplicaPlan, Supervisor};
use crate::text::TextModel;
use crate::transport::Peers;
use crate::trust::{Bundle, Identity};
use anyhow::Context;
use coordinator::cluster_state::ClusterState;
use proto::cluster::{Deployment, Placement, ReplicaRecord, StagePlace};
use proto::stage::StagePart;
use proto::{NodeId, ReplicaId};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Cheap to copy.
#[derive(Clone)]
pub struct Hosting {
    pub own: NodeId,
    pub applied: AppliedState,
    pub config: Arc<Config>,
    pub shelf: Shelf,
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub quic: SocketAddr,
    pub peers: Peers,
    pub desk: Arc<Desk>,
    pub router: Mailbox<RouterMessage>,
    pub board: Board,
    pub gateway: Arc<RouterGateway>,
    pub epochs: Epochs,
}

/// A stage that belongs on this node.
#[derive(Clone)]
struct Assignment {
    deployment: Deployment,
    placement: Placement,
    record: ReplicaRecord,
    /// Its place among the stages.
    stage: usize,
}

struct Running {
    assignment: Assignment,
    task: JoinHandle<()>,
    /// Where the head is here.
    hub: Option<Hub>,
}

impl Hosting {
    /// For as long as the node lives.
    pub async fn follow(self) {
        let mut changes = self.applied.changes();
        let mut running: BTreeMap<ReplicaId, Running> = BTreeMap::new();
        loop {
            let mut wanted = self.wanted();
            let ended: Vec<ReplicaId> = running
                .iter()
                .filter(|(replica, running)| {
                    let now = wanted.get(replica);
                    now.is_none_or(|now| !now.is_the_same(&running.assignment))
                })
                .map(|(replica, _)| *replica)
                .collect();
            for replica in ended {
                let ended = running.remove(&replica).expect("it was found among these");
                self.end(replica, ended).await;
            }
            wanted.retain(|replica, _| !running.contains_key(replica));
            for (replica, assignment) in wanted {
                running.insert(replica, self.start(assignment));
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn wanted(&self) -> BTreeMap<ReplicaId, Assignment> {
        let state = self.applied.read();
        let assignment = |placement: &Placement| {
            let stage = placement.stages.iter().position(|stage| stage.node == self.own)?;
            Some(Assignment {
                deployment: state.deployment(&placement.model)?.clone(),
                record: state.replica(placement.replica)?.clone(),
                placement: placement.clone(),
                stage,
            })
        };
        let all = state.placements().filter_map(assignment);
        all.map(|assignment| (assignment.record.replica, assignment))
            .collect()
    }

    fn start(&self, assignment: Assignment) -> Running {
        let hub = assignment.is_head().then(|| {
            Hub::new(
                assignment.record.replica,
                assignment.record.model.clone(),
                assignment.deployment.model.digest,
                self.router.clone(),
            )
        });
        let (host, its, hub_of_task) = (self.clone(), assignment.clone(), hub.clone());
        let task = tokio::spawn(async move { host.host(its, hub_of_task).await });
        Running {
            assignment,
            task,
            hub,
        }
    }

    async fn end(&self, replica: ReplicaId, mut ended: Running) {
        ended.task.abort();
        // With the task goes the process, and what it has said of itself: what follows must not be mixed up with it.
        let _ = (&mut ended.task).await;
        if let Some(hub) = ended.hub.take() {
            self.desk.remove_replica(replica);
            hub.end().await;
            self.board.remove_here(replica);
        } else {
            self.desk.stages.remove(replica);
        }
    }

    /// Until it is aborted. What is missing is tried again: somebody may be about to mend it.
    async fn host(self, mut assignment: Assignment, hub: Option<Hub>) {
        loop {
            let files = self.files(&assignment);
            let damage = Arc::new(Notify::new());
            let came = match self.begin(&mut assignment, &files).await {
                // What has begun to load ends where the rest does not come: that is no failure of its own.
                Ok((file, rest)) => tokio::select! {
                    () = self.run(&assignment, hub.as_ref(), file, &damage) => return,
                    came = self.finish(&assignment, &files, rest) => came,
                    () = damage.notified() => files.weed(&assignment.deployment).await,
                },
                Err(error) if is_damage(&error) => files.weed(&assignment.deployment).await,
                Err(error) => Err(error),
            };
            if let Err(error) = came {
                self.cannot_start(&assignment, &format!("{error:#}"));
                sleep(TRY_AGAIN).await;
            }
        }
    }

    /// Of the epochs that are this run's, with what the stage needs of the file.
    async fn begin(
        &self,
        assignment: &mut Assignment,
        files: &ModelFiles,
    ) -> anyhow::Result<(PlacedFile, Option<Rest>)> {
        let record = &mut assignment.record;
        let epoch = self.epochs.first_of(record.replica, record.epoch);
        record.epoch = epoch.context("noting in the data folder which epochs this run uses")?;
        let stage = assignment.placement.stages[assignment.stage];
        let layers = stage.layer_first..stage.layer_end;
        files.take(&assignment.deployment, layers, &self.others()).await
    }

    fn cannot_start(&self, assignment: &Assignment, error: &str) {
        let model = &assignment.deployment.model.name;
        tracing::warn!(model, error, "what was placed here cannot start yet");
        let (replica, reason) = (assignment.record.replica, error.to_owned());
        match assignment.is_head() {
            true => {
                let epoch = assignment.record.epoch;
                self.board.starting(replica, epoch, model, Where::Here);
                self.board.phase(replica, Phase::Down { reason });
            }
            false => self.desk.stages.fail(replica, reason),
        }
    }

    /// Until it is dropped.
    async fn run(&self, assignment: &Assignment, hub: Option<&Hub>, file: PlacedFile, damage: &Arc<Notify>) {
        let plan = ReplicaPlan {
            damage: Arc::clone(damage),
            ..self.plan(assignment, &file)
        };
        match hub {
            Some(hub) => self.lead(assignment, hub.clone(), plan, file).await,
            None => {
                let ports = self.desk.stages.clone();
                StageKeeper { plan, ports }.run().await;
            }
        }
    }

    /// Comes to an end where what has begun must begin anew: with the whole file, or after an error.
    async fn finish(
        &self,
        assignment: &Assignment,
        files: &ModelFiles,
        rest: Option<Rest>,
    ) -> anyhow::Result<()> {
        let came = match rest {
            Some(rest) => files.finish(rest, &assignment.deployment, &self.others()).await?,
            None => Came::There,
        };
        match came {
            Came::There => std::future::pending().await,
            Came::Elsewhere => Ok(()),
        }
    }

    fn others(&self) -> Vec<NodeId> {
        let state = self.applied.read();
        let others = state.members().filter(|member| member.node != self.own);
        others.map(|member| member.node).collect()
    }

    fn files(&self, assignment: &Assignment) -> ModelFiles {
        ModelFiles {
            own: self.own,
            peers: self.peers.clone(),
            shelf: self.shelf.clone(),
            kv: assignment.deployment.kv_cache.into(),
        }
    }

    /// The node of the last stage has the engine, and speaks for the replica.
    async fn lead(&self, assignment: &Assignment, hub: Hub, plan: ReplicaPlan, file: PlacedFile) {
        self.desk
            .texts
            .add(assignment.deployment.model.digest, &file.source);
        self.desk.add_replica(assignment.record.replica, hub.clone());
        let (first, started) = oneshot::channel();
        let before = &assignment.placement.stages[..assignment.stage];
        let pipeline = (!before.is_empty()).then(|| Pipeline {
            replica: assignment.record.replica,
            before: before.iter().map(|stage| stage.node).collect(),
            peers: self.peers.clone(),
            board: self.board.clone(),
        });
        let mut supervisor = Supervisor {
            plan,
            pipeline,
            hub,
            board: self.board.clone(),
            epochs: self.epochs.clone(),
            on_first_failure: FirstFailure::TryAgain,
        };
        tokio::join!(
            supervisor.run(first),
            self.announce(&assignment.deployment, &file, started)
        );
    }

    /// Clients of this node see the model once its replica has come up.
    async fn announce(
        &self,
        deployment: &Deployment,
        file: &PlacedFile,
        started: oneshot::Receiver<FirstStart>,
    ) {
        let source = file.source.clone();
        // Building it takes a while, and other tasks live on this thread.
        let text = tokio::task::spawn_blocking(move || TextModel::from_source(source));
        let Ok(Ok(info)) = started.await else { return };
        let name = &deployment.model.name;
        if self.gateway.models().iter().any(|served| served.name == *name) {
            return;
        }
        let served = text
            .await
            .map_err(anyhow::Error::from)
            .and_then(|text| served(deployment, text?, info.context_tokens_max));
        match served {
            Ok(served) => self.gateway.add_model(served),
            Err(error) => tracing::error!(model = name, %error, "it cannot be offered to clients"),
        }
    }

    fn plan(&self, assignment: &Assignment, file: &PlacedFile) -> ReplicaPlan {
        let Assignment {
            placement,
            record,
            stage,
            ..
        } = assignment;
        let StagePlace {
            ranks,
            threads,
            memory_bytes,
            ..
        } = placement.stages[*stage];
        let part = |stage: &StagePlace| StagePart {
            layer_first: stage.layer_first,
            layer_end: stage.layer_end,
            blocks: placement.blocks,
            step_tokens_max: placement.step_tokens_max,
        };
        let stages = placement.stages.len();
        let setup = ShardSetup {
            replica: record.replica,
            epoch: record.epoch,
            model: record.model.clone(),
            model_path: file.path.to_string_lossy().into_owned(),
            file: match file.coming {
                Some(_) => FileState::Coming,
                None => FileState::Here,
            },
            manifest: file.manifest.to_bytes(),
            packed: file.packed.to_string_lossy().into_owned(),
            ranks,
            threads,
            kv_cache: assignment.deployment.kv_cache.into(),
            memory_bytes_max: Some(memory_bytes),
            cpu_level: self.config.cpu_level.value.clone(),
            placed: Some(PlacedSetup {
                parts: placement.stages.iter().map(part).collect(),
                stage: *stage as u16,
                link: None,
            }),
        };
        ReplicaPlan {
            model: record.model.clone(),
            setup,
            link: (stages > 1).then(|| self.link(placement)),
            coming: file.coming.clone(),
            damage: Arc::default(),
            log_format: self.config.log_format.value,
        }
    }

    /// Where other nodes reach this one.
    fn reachable_ip(&self, state: &ClusterState) -> IpAddr {
        let told = state
            .member(self.own)
            .map(|member| member.quic.parse::<SocketAddr>());
        told.and_then(Result::ok).map_or(self.quic.ip(), |quic| quic.ip())
    }

    fn link(&self, placement: &Placement) -> LinkSource {
        let state = self.applied.read();
        let member = |stage: &StagePlace| {
            let member = state.member(stage.node)?;
            Some(LinkMember {
                node: member.node,
                spki: member.spki,
                role: member.role,
            })
        };
        LinkSource {
            identity: Arc::clone(&self.identity),
            bundle: Arc::clone(&self.bundle),
            node: self.own,
            ip: self.reachable_ip(&state),
            members: placement.stages.iter().filter_map(member).collect(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Assignment {
    fn is_head(&self) -> bool {
        self.stage + 1 == self.placement.stages.len()
    }

    /// Epochs count up by themselves.
    fn is_the_same(&self, other: &Assignment) -> bool {
        self.deployment.model.digest == other.deployment.model.digest
            && self.placement.stages == other.placement.stages
            && self.placement.blocks == other.placement.blocks
    }
}

fn served(deployment: &Deployment, text: TextModel, context_tokens_max: u32) -> anyhow::Result<ServedModel> {
    let model = &deployment.model;
    Ok(ServedModel {
        name: model.name.clone(),
        added_at_secs: model.added_at_secs,
        context_tokens_max,
        grammars: Checker::start(text.vocabulary().clone(), text.end_tokens())
            .context("threads that check grammars")?,
        text,
    })
}
