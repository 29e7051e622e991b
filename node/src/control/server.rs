//! The node's side of the socket.

use super::{ControlRequest, ReplicaStatus, StatusReport, socket};
use crate::actors::board::{Board, Phase, ReplicaView};
use crate::clock::Clock;
use crate::state::NodeState;
use proto::ReplicaId;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const REQUEST_BYTES_MAX: u64 = 64 << 10;
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);

pub struct ControlServer {
    pub http: SocketAddr,
    pub board: Board,
    pub state: Arc<NodeState>,
    pub clock: Clock,
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
        let mut answer = match serde_json::from_str::<ControlRequest>(&line)? {
            ControlRequest::Status => serde_json::to_vec(&self.status())?,
        };
        answer.push(b'\n');
        writer.write_all(&answer).await
    }

    fn status(&self) -> StatusReport {
        let health = self.board.health();
        let applied = self.state.applied();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_secs: self.clock.now().0 / 1_000_000_000,
            http: format!("http://{}", self.http),
            healthy: health.is_ok(),
            reason: health.err(),
            replicas: self
                .board
                .views()
                .iter()
                .map(|(replica, view)| replica_status(*replica, view))
                .collect(),
            tenants: applied.tenants().count(),
            keys: applied.keys().count(),
        }
    }
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
    }
}
