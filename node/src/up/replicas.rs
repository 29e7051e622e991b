//! The replicas that a node serves by its own choice, with the cluster's word or, where it cannot agree, with what this node
//! has heard before.

use super::keeping::{Keeper, Mending};
use super::model::PreparedModel;
use super::naming::Naming;
use super::shared::SharedFiles;
use super::waiting::WaitingModel;
use crate::actors::gateway::RouterGateway;
use crate::clock;
use crate::config::Config;
use crate::constraint::checker::Checker;
use crate::gateway::ServedModel;
use crate::peers::Desk;
use crate::shard_host::epochs::Epochs;
use crate::shard_host::hub::Hub;
use crate::shard_host::supervisor::{FirstFailure, FirstStart, Supervisor};
use crate::state::NodeState;
use crate::store::Use;
use anyhow::Context;
use proto::cluster::{ModelRecord, ReplicaRecord};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// What it takes to start them. Cheap to copy.
#[derive(Clone)]
pub struct OwnReplicas {
    pub config: Arc<Config>,
    pub state: Arc<NodeState>,
    pub desk: Arc<Desk>,
    pub gateway: Arc<RouterGateway>,
    pub epochs: Epochs,
    pub files: SharedFiles,
}

/// One of the models that this node is to serve.
pub enum OwnModel {
    Here(Box<PreparedModel>),
    Waiting(Box<WaitingModel>),
}

/// What can be served, and what has to wait until the cluster has named it.
pub struct Sorted {
    pub named: Vec<(OwnModel, ReplicaRecord)>,
    pub later: Option<Later>,
}

/// Until the cluster agrees again.
pub struct Later {
    naming: Naming,
    unnamed: Vec<OwnModel>,
}

/// A replica on its way up.
pub struct StartingReplica {
    pub served: ServedModel,
    pub first: oneshot::Receiver<FirstStart>,
    /// For as long as it is to live.
    pub keeper: Keeper,
    pub on_first: oneshot::Sender<FirstStart>,
    pub in_use: Use,
}

impl OwnReplicas {
    /// Waits some seconds for the cluster to agree.
    pub async fn sort(&self, models: Vec<OwnModel>) -> anyhow::Result<Sorted> {
        let records = models.iter().map(OwnModel::record).collect();
        let naming = Naming::new(Arc::clone(&self.state), records);
        if let Some(records) = naming.ask().await? {
            let named = models.into_iter().zip(records).collect();
            return Ok(Sorted { named, later: None });
        }
        self.begin_new_epochs();
        let mut sorted = (Vec::new(), Vec::new());
        for model in models {
            match self.known(&model) {
                Some(record) => sorted.0.push((model, record)),
                None => sorted.1.push(model),
            }
        }
        let (named, unnamed) = sorted;
        let later = Some(Later { naming, unnamed });
        Ok(Sorted { named, later })
    }

    /// As it was agreed on when this node last heard of it, by the same file.
    fn known(&self, model: &OwnModel) -> Option<ReplicaRecord> {
        let (applied, wanted) = (self.state.applied(), model.record());
        let is_same = applied.model(&wanted.name)?.digest == wanted.digest;
        let record = applied.own_replica(self.state.node(), &wanted.name)?;
        is_same.then(|| record.clone())
    }

    /// Also of what is placed here.
    fn begin_new_epochs(&self) {
        let applied = self.state.applied();
        let own = applied
            .replicas()
            .filter(|replica| replica.node == self.state.node());
        own.for_each(|replica| self.epochs.begin_beyond(replica.replica, replica.epoch));
    }

    /// From now on routers may use it as soon as it is ready.
    pub async fn start(
        &self,
        model: PreparedModel,
        known: &ReplicaRecord,
    ) -> anyhow::Result<StartingReplica> {
        let epoch = self.epochs.first_of(known.replica, known.epoch);
        let record = ReplicaRecord {
            epoch: epoch.context("noting in the data folder which epochs this run uses")?,
            ..known.clone()
        };
        let hub = Hub::new(
            record.replica,
            model.named.name.clone(),
            model.stored.digest,
            self.gateway.mailbox.clone(),
        );
        self.desk.texts.add(model.stored.digest, &model.source);
        self.desk.add_replica(record.replica, hub.clone());
        let is_offered = self.state.applied().is_offered(record.replica, record.node);
        if !is_offered {
            hub.withdraw().await;
        }
        let plan = model.replica(&self.config, &record);
        let mending = model.shared.map(|model| Mending {
            files: self.files.clone(),
            model,
        });
        let supervisor = Supervisor {
            plan,
            on_first_failure: FirstFailure::End,
            pipeline: None,
            hub,
            board: self.gateway.board.clone(),
            epochs: self.epochs.clone(),
        };
        let added_at_secs = {
            let applied = self.state.applied();
            applied.model(&model.named.name).map(|known| known.added_at_secs)
        };
        let served = ServedModel {
            name: model.named.name,
            added_at_secs: added_at_secs.unwrap_or_else(clock::unix_secs),
            context_tokens_max: model.memory.context_tokens_max,
            grammars: Checker::start(model.text.vocabulary().clone(), model.text.end_tokens())?,
            text: model.text,
        };
        let (on_first, first) = oneshot::channel();
        Ok(StartingReplica {
            served,
            first,
            keeper: Keeper { supervisor, mending },
            on_first,
            in_use: model.in_use,
        })
    }

    /// Tells the cluster what this node serves when there is one again, and starts what it has to name first. For as long as
    /// the node lives.
    pub async fn start_later(self, later: Later) {
        let records = match later.naming.wait().await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "the cluster does not take what this node serves: start it again with other models");
                return;
            }
        };
        tracing::info!("the cluster agrees again, and knows what this node serves");
        let mut running = JoinSet::new();
        for model in later.unnamed {
            let name = model.record().name;
            let record = records.iter().find(|record| record.model == name);
            let record = record.expect("each model was named").clone();
            match model {
                OwnModel::Here(model) => running.spawn(self.clone().keep(*model, record)),
                OwnModel::Waiting(waiting) => running.spawn(self.clone().wait_for(*waiting, record)),
            };
        }
        while running.join_next().await.is_some() {}
    }

    /// For as long as the node lives.
    pub async fn keep(self, model: PreparedModel, record: ReplicaRecord) {
        let name = model.named.name.clone();
        let starting = match self.start(model, &record).await {
            Ok(starting) => starting,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(model = name, error, "it cannot be served");
                return;
            }
        };
        let gateway = Arc::clone(&self.gateway);
        let announce = async {
            match starting.first.await {
                Ok(Ok(info)) => gateway.add_model(ServedModel {
                    context_tokens_max: info.context_tokens_max,
                    ..starting.served
                }),
                Ok(Err(error)) => tracing::error!(model = name, error, "it cannot be served"),
                Err(_) => tracing::error!(model = name, "its supervisor died"),
            }
        };
        tokio::join!(starting.keeper.run(starting.on_first), announce);
        drop(starting.in_use);
    }
}

impl OwnModel {
    /// As the cluster knows it from now on.
    fn record(&self) -> ModelRecord {
        match self {
            OwnModel::Here(model) => model.record(),
            OwnModel::Waiting(waiting) => waiting.record(),
        }
    }
}
