//! The node's side of the socket.

use super::report::{
    Access, CreatedKey, FirstToken, KeyStatus, Keys, ReplicaStatus, StatusReport, TenantStatus, Tenants,
};
use super::{ControlAnswer, ControlRequest, socket};
use crate::actors::board::{Board, Phase, ReplicaView};
use crate::clock::Clock;
use crate::state::keys::LocalKey;
use crate::state::{NodeState, keys, tenants};
use crate::telemetry::recent::FIRST_TOKEN;
use coordinator::cluster_state::ClusterState;
use proto::cluster::{KeyRecord, TenantRecord};
use proto::{ReplicaId, TenantId};
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const REQUEST_BYTES_MAX: u64 = 64 << 10;
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);

pub struct ControlServer {
    /// `http` or `https`.
    pub scheme: &'static str,
    pub http: SocketAddr,
    pub board: Board,
    pub state: Arc<NodeState>,
    pub clock: Clock,
    pub local_key: Arc<LocalKey>,
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
    /// For as long as the node lives. Requests are answered one by one: they are rare and small.
    pub async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answered = tokio::time::timeout(REQUEST_WAIT_MAX, self.answer(stream)).await;
                    if let Ok(Err(error)) = answered {
                        tracing::debug!(%error, "control socket");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
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
        // Commands wait for the disk.
        let mut answer = tokio::task::block_in_place(|| self.handle(request))?;
        answer.push(b'\n');
        writer.write_all(&answer).await
    }

    fn handle(&self, request: ControlRequest) -> serde_json::Result<Vec<u8>> {
        match request {
            ControlRequest::Status => told(Ok(self.status())),
            ControlRequest::OpenAccess => told(Ok(Access {
                url: self.url(),
                key: self.local_key.text().to_owned(),
                certificate: self.certificate.clone(),
            })),
            ControlRequest::CreateKey { tenant, name } => told(self.create_key(tenant, name)),
            ControlRequest::ListKeys => told(Ok(key_list(&self.state.applied()))),
            ControlRequest::RevokeKey { key } => told(keys::revoke(&self.state, &key).map_err(in_words)),
            ControlRequest::AddTenant { name } => {
                told(tenants::add(&self.state, &name).map(|_| ()).map_err(in_words))
            }
            ControlRequest::ListTenants => told(Ok(tenant_list(&self.state.applied()))),
            ControlRequest::RemoveTenant { name } => {
                told(tenants::remove(&self.state, &name).map_err(in_words))
            }
        }
    }

    fn create_key(&self, tenant: String, name: Option<String>) -> ControlAnswer<CreatedKey> {
        let key = keys::create(&self.state, &tenant, name.as_deref()).map_err(in_words)?;
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

    fn status(&self) -> StatusReport {
        let health = self.board.health();
        let applied = self.state.applied();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_secs: self.clock.now().0 / 1_000_000_000,
            http: self.url(),
            healthy: health.is_ok(),
            reason: health.err(),
            replicas: self
                .board
                .views()
                .iter()
                .map(|(replica, view)| replica_status(*replica, view))
                .collect(),
            first_token_ms: first_token_ms(),
            tenants: applied.tenants().count(),
            keys: applied.keys().count(),
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
        name: state.key_name(&key.key_id).map(str::to_owned),
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

fn replica_status(replica: ReplicaId, view: &ReplicaView) -> ReplicaStatus {
    let info = match &view.phase {
        Phase::Ready(info) => Some(info),
        Phase::Starting | Phase::Loading { .. } | Phase::Down { .. } => None,
    };
    ReplicaStatus {
        replica: replica.0,
        model: view.model.clone(),
        epoch: view.epoch.0,
        state: view.phase.in_words(),
        description: info.map(|info| info.description.clone()),
        context_tokens_max: info.map(|info| info.context_tokens_max),
        running: view.load.running,
        waiting: view.load.waiting,
        blocks_total: view.load.blocks_total,
        blocks_free: view.load.blocks_free,
        blocks_cached: view.load.blocks_cached,
        steps: view.load.steps,
        preemptions: view.load.preemptions,
        sampled_tokens: view.load.sampled_tokens,
        computed_tokens: view.load.computed_tokens,
        prefix_queried_tokens: view.load.prefix_queried_tokens,
        prefix_hit_tokens: view.load.prefix_hit_tokens,
    }
}
