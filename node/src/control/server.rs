//! The node's side of the socket.

use super::drains;
use super::nodes;
use super::placements;
use super::report::{
    Access, CreatedKey, FirstToken, KeyStatus, Keys, ReplicaStatus, StatusReport, TenantStatus, Tenants,
};
use super::{ControlAnswer, ControlRequest, socket};
use crate::actors::board::{Board, Phase, ReplicaView, Where};
use crate::clock::Clock;
use crate::peers::rotation::Rotation;
use crate::peers::{DataFolder, Desk};
use crate::placement::deploy::Deploying;
use crate::placement::outlook;
use crate::state::keys::LocalKey;
use crate::state::{NodeState, keys, tenants};
use crate::telemetry::recent::FIRST_TOKEN;
use coordinator::cluster_state::ClusterState;
use proto::cluster::{KeyRecord, TenantRecord};
use proto::engine::Load;
use proto::{NodeId, ReplicaId, TenantId};
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Longer than the cluster takes to agree, or to find that it cannot.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(15);
const REQUESTS_MAX: usize = 64;

pub struct ControlServer {
    /// `http` or `https`.
    pub scheme: &'static str,
    pub http: SocketAddr,
    pub board: Board,
    pub state: Arc<NodeState>,
    pub clock: Clock,
    pub local_key: Arc<LocalKey>,
    pub desk: Arc<Desk>,
    pub folder: Arc<DataFolder>,
    pub deploying: Arc<Deploying>,
    /// Absolute, since commands run elsewhere.
    pub certificate: Option<PathBuf>,
}

/// A socket left over by a node that was killed is replaced: the lock on the data folder says that nobody uses it.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = socket(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The folder is its owner's alone, so nobody can come in between.
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl ControlServer {
    /// For as long as the node lives. Requests are answered side by side, since some wait for the cluster to agree.
    pub async fn serve(self, listener: UnixListener) {
        let (server, seats) = (Arc::new(self), Arc::new(Semaphore::new(REQUESTS_MAX)));
        loop {
            let seat = Arc::clone(&seats).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move {
                        let answered = timeout(REQUEST_WAIT_MAX, server.answer(stream)).await;
                        if let Ok(Err(error)) = answered {
                            tracing::debug!(%error, "control socket");
                        }
                        drop(seat);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        BufReader::new(reader.take(REQUEST_BYTES_MAX))
            .read_line(&mut line)
            .await?;
        let request = serde_json::from_str::<ControlRequest>(&line)?;
        let mut answer = self.handle(request).await?;
        answer.push(b'\n');
        writer.write_all(&answer).await
    }

    async fn handle(&self, request: ControlRequest) -> serde_json::Result<Vec<u8>> {
        match request {
            ControlRequest::Status => told(Ok(self.status().await)),
            ControlRequest::OpenAccess => told(Ok(Access {
                url: self.url(),
                key: self.local_key.text().to_owned(),
                certificate: self.certificate.clone(),
            })),
            ControlRequest::CreateKey { tenant, name } => told(self.create_key(tenant, name).await),
            ControlRequest::ListKeys => told(self.read(key_list).await),
            ControlRequest::RevokeKey { key } => {
                told(keys::revoke(&self.state, &key).await.map_err(in_words))
            }
            ControlRequest::AddTenant { name } => {
                told(tenants::add(&self.state, &name).await.map_err(in_words))
            }
            ControlRequest::ListTenants => told(self.read(tenant_list).await),
            ControlRequest::RemoveTenant { name } => {
                told(tenants::remove(&self.state, &name).await.map_err(in_words))
            }
            ControlRequest::CreateToken { role, ttl_secs } => {
                told(nodes::create_token(&self.state, &role, ttl_secs).await)
            }
            ControlRequest::ListNodes => {
                let read = self.state.linearize().await.map_err(in_words);
                told(read.map(|()| nodes::list(&self.state)))
            }
            ControlRequest::RemoveNode { node } => told(nodes::remove(&self.state, NodeId(node)).await),
            ControlRequest::DrainNode { node } => {
                told(drains::drain(&self.state, &self.deploying.outlook, NodeId(node)).await)
            }
            ControlRequest::ResumeNode { node } => told(drains::resume(&self.state, NodeId(node)).await),
            ControlRequest::RevokeToken { id } => told(nodes::revoke_token(&self.state, id).await),
            ControlRequest::PlanModel(wish) => told(self.deploying.plan(&wish).await),
            ControlRequest::DeployModel(wish) => told(self.deploying.deploy(&wish).await),
            ControlRequest::UndeployModel { model } => told(self.deploying.undeploy(model).await),
            ControlRequest::BeginRotation => told(self.rotation().begin().await),
            ControlRequest::FinishRotation => told(self.rotation().finish().await),
            ControlRequest::AbandonRotation => told(self.rotation().abandon().await),
            ControlRequest::Backup => told(nodes::backup(&self.state).await),
        }
    }

    fn rotation(&self) -> Rotation<'_> {
        Rotation {
            state: &self.state,
            desk: &self.desk,
            folder: &self.folder,
        }
    }

    /// What everybody was told before this was asked is in it.
    async fn read<T>(&self, read: fn(&ClusterState) -> T) -> ControlAnswer<T> {
        self.state.linearize().await.map_err(in_words)?;
        Ok(read(&self.state.applied()))
    }

    async fn create_key(&self, tenant: String, name: Option<String>) -> ControlAnswer<CreatedKey> {
        let key = keys::create(&self.state, &tenant, name.as_deref())
            .await
            .map_err(in_words)?;
        Ok(CreatedKey {
            key: key.text,
            id: key.record.key_id,
            tenant,
            name,
        })
    }

    fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.http)
    }

    /// Where the node that leads cannot be asked, why something waits is not told.
    async fn status(&self) -> StatusReport {
        let outlook = outlook::ask(&self.state, &self.deploying.outlook)
            .await
            .unwrap_or_default();
        let own = self.state.node();
        // Let go before anything else reads the state: who reads twice at once waits for ever behind a change.
        let (health, deployments, tenants, keys) = {
            let applied = self.state.applied();
            let health = self.board.health(|replica| applied.is_offered(replica, own));
            let deployments = placements::list(&applied, &self.board, &outlook);
            (
                health,
                deployments,
                applied.tenants().count(),
                applied.keys().count(),
            )
        };
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_secs: self.clock.now().0 / 1_000_000_000,
            http: self.url(),
            healthy: health.is_ok(),
            reason: health.err(),
            node: self.state.node().0,
            quic: nodes::quic(&self.state),
            raft: nodes::raft(&self.state),
            nodes: nodes::list(&self.state).nodes,
            replicas: self
                .board
                .views()
                .iter()
                .map(|(replica, view)| replica_status(self.state.node(), *replica, view))
                .collect(),
            deployments,
            first_token_ms: first_token_ms(),
            tenants,
            keys,
        }
    }
}

fn told<T: Serialize>(answer: ControlAnswer<T>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&answer)
}

fn in_words(error: impl std::error::Error) -> String {
    error.to_string()
}

fn key_list(state: &ClusterState) -> Keys {
    let status = |key: &KeyRecord| KeyStatus {
        id: key.key_id.clone(),
        tenant: tenant_name(state, key.tenant),
        name: key.name.clone(),
        created_at_secs: key.created_at_secs,
    };
    let mut keys: Vec<KeyStatus> = state.keys().map(status).collect();
    keys.sort_by_key(|key| key.created_at_secs);
    Keys { keys }
}

fn tenant_name(state: &ClusterState, id: TenantId) -> String {
    state
        .tenant(id)
        .map_or_else(|| id.to_string(), |tenant| tenant.name.clone())
}

fn tenant_list(state: &ClusterState) -> Tenants {
    let status = |tenant: &TenantRecord| TenantStatus {
        name: tenant.name.clone(),
        keys: state.keys().filter(|key| key.tenant == tenant.id).count(),
    };
    Tenants {
        tenants: state.tenants().map(status).collect(),
    }
}

fn first_token_ms() -> Option<FirstToken> {
    let millis = |percent| Some(FIRST_TOKEN.percentile(percent)?.as_secs_f64() * 1e3);
    Some(FirstToken {
        p50: millis(50)?,
        p95: millis(95)?,
    })
}

fn replica_status(own: NodeId, replica: ReplicaId, view: &ReplicaView) -> ReplicaStatus {
    let info = match &view.phase {
        Phase::Ready(info) => Some(info),
        Phase::Starting | Phase::Loading { .. } | Phase::Waiting { .. } | Phase::Down { .. } => None,
    };
    // What is not up does nothing, whatever it last said.
    let load = info.map_or_else(Load::default, |_| view.load);
    ReplicaStatus {
        replica: replica.0,
        node: match view.place {
            Where::Here => own.0,
            Where::Elsewhere(node) => node.0,
        },
        model: view.model.clone(),
        epoch: view.epoch.0,
        state: view.phase.in_words(),
        description: info.map(|info| info.description.clone()),
        context_tokens_max: info.map(|info| info.context_tokens_max),
        running: load.running,
        waiting: load.waiting,
        blocks_total: load.blocks_total,
        blocks_free: load.blocks_free,
        blocks_cached: load.blocks_cached,
        steps: load.steps,
        preemptions: load.preemptions,
        sampled_tokens: load.sampled_tokens,
        computed_tokens: load.computed_tokens,
        prefix_queried_tokens: load.prefix_queried_tokens,
        prefix_hit_tokens: load.prefix_hit_tokens,
    }
}
