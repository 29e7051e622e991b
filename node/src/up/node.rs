//! A running node: everything started in order, and ended in order.

use super::announce::{self, Output, Ready, ReadyModel, Talks};
use super::model::{self, PreparedModel};
use super::signals::Signals;
use crate::actors::board::Board;
use crate::actors::gateway::RouterGateway;
use crate::actors::machine::{self, Mailbox};
use crate::actors::router::{RouterMessage, RouterWorld};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::high::Auth;
use crate::control::server::{self, ControlServer};
use crate::gateway::ServedModel;
use crate::http::{self, Limits, MetricsAccess};
use crate::shard_host::supervisor::{FirstStart, Supervisor};
use crate::state::{NodeState, keys};
use crate::telemetry::recorder;
use anyhow::{Context, bail};
use coordinator::router::{Router, RouterConfig};
use proto::ReplicaId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Messages that may wait for the router from producers that can wait.
const ROUTER_CREDITS: usize = 4096;
/// From the signal to the end of the process; what still runs then is cut off.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// Until the node is told to end. An error is one line for the person who started it.
pub async fn run(config: Config, output: Output) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        node = Node::start(&config, output) => node?.serve(&mut signals).await,
        () = signals.next() => Ok(()),
    }
}

struct Node {
    http: TcpListener,
    limits: Limits,
    gateway: Arc<RouterGateway>,
    mailbox: Mailbox<RouterMessage>,
    router_ended: tokio::task::JoinHandle<()>,
    /// Models on their way up, with what clients will see of them.
    starting: JoinSet<(ServedModel, FirstStart)>,
    supervisors: JoinSet<()>,
    output: Output,
    key: Option<String>,
}

impl Node {
    /// What is quick and may fail comes first, so that nothing is fetched or loaded in vain.
    async fn start(config: &Config, output: Output) -> anyhow::Result<Node> {
        let state = Arc::new(NodeState::open(&config.data_dir.value)?);
        let http = bind(config.http.value).await?;
        let address = http.local_addr()?;
        let prepared = prepare(config.clone()).await?;
        announce::machine_lines(config)
            .iter()
            .for_each(|line| output.say(line));
        prepared
            .iter()
            .flat_map(|model| model.plan_lines(config))
            .for_each(|line| output.say(&line));
        keys::ensure_default_tenant(&state)?;
        let key = match config.auth.value {
            Auth::Keys => keys::ensure_first_key(&state)?,
            Auth::Open => None,
        };
        if let (Some(key), Output::Words) = (&key, output) {
            output.say(&announce::key_lines(key));
        }
        let clock = Clock::start();
        let board = Board::default();
        let router = Router::new(RouterConfig::default());
        let world = RouterWorld::new(Arc::clone(&state));
        let (mailbox, router_ended) = machine::spawn(router, world, clock, ROUTER_CREDITS).await?;
        let gateway = Arc::new(RouterGateway {
            mailbox: mailbox.clone(),
            state: Arc::clone(&state),
            board: board.clone(),
            auth: config.auth.value,
            models: Default::default(),
            recorded: recorder::install()?,
        });
        let control =
            server::bind(&config.data_dir.value).context("the control socket in the data folder")?;
        let mut supervisors = JoinSet::new();
        supervisors.spawn(
            ControlServer {
                http: address,
                board: board.clone(),
                state: Arc::clone(&state),
                clock,
            }
            .serve(control),
        );
        let mut node = Node {
            http,
            limits: limits(address),
            gateway,
            mailbox,
            router_ended,
            starting: JoinSet::new(),
            supervisors,
            output,
            key,
        };
        for (number, model) in (0..).zip(prepared) {
            node.start_replica(config, &state, &board, ReplicaId(number), model)?;
        }
        Ok(node)
    }

    fn start_replica(
        &mut self,
        config: &Config,
        state: &NodeState,
        board: &Board,
        replica: ReplicaId,
        model: PreparedModel,
    ) -> anyhow::Result<()> {
        let added_at_secs = model.commit(state)?;
        let plan = model.replica(config, replica);
        let supervisor = Supervisor {
            plan,
            mailbox: self.mailbox.clone(),
            board: board.clone(),
        };
        let (sender, first) = oneshot::channel();
        self.supervisors.spawn(supervisor.run(sender));
        let served = ServedModel {
            name: model.named.name,
            added_at_secs,
            context_tokens_max: model.memory.context_tokens_max,
            text: model.text,
        };
        self.starting.spawn(async move {
            let first = first
                .await
                .unwrap_or_else(|_| Err("its supervisor died".to_owned()));
            (served, first)
        });
        Ok(())
    }

    async fn serve(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let (stop, stopped) = oneshot::channel::<()>();
        let router = http::router(self.gateway.clone(), self.limits.clone());
        let address = self.http.local_addr()?;
        let (listener, limits) = (self.http, self.limits);
        let mut serving = tokio::spawn(http::serve(listener, router, limits, async move {
            let _ = stopped.await;
        }));
        let ready = come_up(&self.gateway, &mut self.starting);
        tokio::select! {
            models = ready => {
                let ready = Ready { http: address, key: self.key.as_deref(), auth: self.gateway.auth, models: &models? };
                self.output.ready(&ready);
            }
            () = signals.next() => return Ok(()),
        }
        tokio::select! {
            () = signals.next() => {}
            ended = &mut serving => bail!("the HTTP listener failed: {:?}", ended),
            _ = &mut self.router_ended => bail!("the router ended by a fault of its own: please report it"),
        }
        tracing::info!("draining: running streams may end, nothing new is taken");
        let (drained, _) = oneshot::channel();
        self.mailbox.send(RouterMessage::Drain { drained }).await;
        let _ = stop.send(());
        tokio::select! {
            _ = serving => {}
            () = signals.next() => tracing::warn!("ended at once"),
        }
        self.supervisors.shutdown().await;
        Ok(())
    }
}

/// The first model that does not come up ends the node.
async fn come_up(
    gateway: &RouterGateway,
    starting: &mut JoinSet<(ServedModel, FirstStart)>,
) -> anyhow::Result<Vec<ReadyModel>> {
    let mut ready = Vec::new();
    while let Some(started) = starting.join_next().await {
        let (mut served, first) = started?;
        let info = first.map_err(anyhow::Error::msg)?;
        served.context_tokens_max = info.context_tokens_max;
        let talks = if served.text.template().is_some() {
            Talks::Chat
        } else {
            Talks::Completions
        };
        ready.push(ReadyModel {
            name: served.name.clone(),
            talks,
        });
        gateway.add_model(served);
    }
    ready.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(ready)
}

async fn prepare(config: Config) -> anyhow::Result<Vec<PreparedModel>> {
    tokio::task::spawn_blocking(move || {
        let store = model::open_store(&config.store.value)?;
        model::prepare_all(&config, &store)
    })
    .await?
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow::anyhow!(
                    "{address} is in use by another program: stop it, or choose another address with --http"
                )
            }
            io::ErrorKind::PermissionDenied => {
                anyhow::anyhow!(
                    "{address} may not be used by this user: choose a port above 1023 with --http"
                )
            }
            _ => anyhow::anyhow!(
                "{address} cannot be listened on ({error}): choose another address with --http"
            ),
        })
}

fn limits(address: SocketAddr) -> Limits {
    let metrics = if address.ip().is_loopback() {
        MetricsAccess::Everyone
    } else {
        MetricsAccess::WithKey
    };
    Limits {
        drain_max: DRAIN_MAX,
        metrics,
        ..Limits::default()
    }
}
