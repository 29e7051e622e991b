//! A running node: everything started in order, and ended in order.

use super::announce::{self, Output, Ready, ReadyModel, Talks};
use super::model::{self, PreparedModel};
use super::signals::Signals;
use crate::actors::board::{Board, ReplicaView};
use crate::actors::gateway::RouterGateway;
use crate::actors::machine::{self, Mailbox};
use crate::actors::router::{RouterMessage, RouterWorld};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::byte_size::ByteSize;
use crate::config::high::{Auth, CONNECTIONS_PER_ADDRESS_MAX};
use crate::constraint::checker::Checker;
use crate::control::server::{self, ControlServer};
use crate::gateway::ServedModel;
use crate::http::{self, Limits, MetricsAccess, SeatsMax, Transport};
use crate::os::files;
use crate::shard_host::supervisor::{FirstStart, Supervisor};
use crate::state::keys::{self, LocalKey};
use crate::state::{NodeState, StateError, tenants};
use crate::store::error::StoreError;
use crate::store::{Store, Use};
use crate::telemetry::{otlp, recorder, spans};
use anyhow::{Context, bail};
use coordinator::cost::StepCost;
use coordinator::router::{Router, RouterConfig};
use proto::ReplicaId;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Messages that may wait for the router from producers that can wait.
const ROUTER_CREDITS: usize = 4096;
/// From the signal to the end of the process; what still runs then is cut off.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// Open files that connections leave to the rest: the state's log, models, pipes to the shard hosts.
const FILES_KEPT: u64 = 256;

/// What a collector of spans may take at the end.
const FLUSH_MAX: Duration = Duration::from_millis(500);

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
    transport: Transport,
    limits: Limits,
    gateway: Arc<RouterGateway>,
    mailbox: Mailbox<RouterMessage>,
    router_ended: tokio::task::JoinHandle<()>,
    /// Models on their way up, with what clients will see of them.
    starting: JoinSet<(ServedModel, FirstStart)>,
    supervisors: JoinSet<()>,
    /// The models in the store, kept there while they are served.
    in_use: Vec<Use>,
    output: Output,
    key: Option<String>,
}

impl Node {
    /// What is quick and may fail comes first, so that nothing is fetched or loaded in vain.
    async fn start(config: &Config, output: Output) -> anyhow::Result<Node> {
        let state = Arc::new(NodeState::open(&config.data_dir.value)?);
        let transport = transport(config)?;
        let exporter = config.otlp_endpoint.value.as_deref();
        let exporter = exporter.map(otlp::start).transpose()?;
        let http = bind(config.http.value).await?;
        let address = http.local_addr()?;
        let prepared = prepare(config.clone(), output).await?;
        tell_plan(config, &prepared, output);
        let key = first_key(config, &state, output)?;
        let clock = Clock::start();
        let board = Board::default();
        let router = Router::new(RouterConfig::default());
        let world = RouterWorld::new(Arc::clone(&state));
        let (mailbox, router_ended) = machine::spawn(router, world, clock, ROUTER_CREDITS).await?;
        let local_key = Arc::new(LocalKey::draw());
        let gateway = Arc::new(RouterGateway {
            mailbox: mailbox.clone(),
            state: Arc::clone(&state),
            board: board.clone(),
            auth: config.auth.value,
            local_key: Arc::clone(&local_key),
            models: Default::default(),
            recorded: recorder::install()?,
        });
        let control = ControlServer {
            scheme: transport.scheme(),
            http: address,
            board: board.clone(),
            state: Arc::clone(&state),
            clock,
            local_key,
            certificate: own_certificate(config)?,
        };
        let mut supervisors = JoinSet::new();
        supervisors.spawn(control.serve(socket(config)?));
        if let Some(exporter) = exporter {
            supervisors.spawn(exporter);
        }
        let mut node = Node {
            http,
            transport,
            limits: limits(config, address),
            gateway,
            mailbox,
            router_ended,
            starting: JoinSet::new(),
            supervisors,
            in_use: Vec::new(),
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
        self.in_use.push(model.in_use);
        let served = ServedModel {
            name: model.named.name,
            added_at_secs,
            context_tokens_max: model.memory.context_tokens_max,
            grammars: Checker::start(model.text.vocabulary().clone(), model.text.end_tokens())?,
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
        let scheme = self.transport.scheme();
        let (listener, transport, limits) = (self.http, self.transport, self.limits);
        let mut serving = tokio::spawn(http::serve(listener, transport, router, limits, async move {
            let _ = stopped.await;
        }));
        let ready = come_up(&self.gateway, &mut self.starting);
        tokio::select! {
            models = ready => {
                let models = models?;
                self.gateway.board.views().values().for_each(|view| tell_speed(self.output, view));
                let ready = Ready { scheme, http: address, key: self.key.as_deref(), auth: self.gateway.auth, models: &models };
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
        let _ = timeout(FLUSH_MAX, spans::flush()).await;
        self.supervisors.shutdown().await;
        drop(self.in_use);
        Ok(())
    }
}

fn tell_plan(config: &Config, prepared: &[PreparedModel], output: Output) {
    let models = prepared.iter().flat_map(|model| model.plan_lines(config));
    for line in announce::machine_lines(config).into_iter().chain(models) {
        output.say(&line);
    }
}

/// `Some` where one was made just now; then it is told.
fn first_key(config: &Config, state: &NodeState, output: Output) -> Result<Option<String>, StateError> {
    tenants::ensure_default(state)?;
    let key = match config.auth.value {
        Auth::Keys => keys::ensure_first_key(state)?,
        Auth::Open => None,
    };
    if let (Some(key), Output::Words) = (&key, output) {
        output.say(&announce::key_lines(key));
    }
    Ok(key)
}

fn socket(config: &Config) -> anyhow::Result<UnixListener> {
    server::bind(&config.data_dir.value).context("the control socket in the data folder")
}

fn own_certificate(config: &Config) -> io::Result<Option<PathBuf>> {
    let file = config.tls_cert.value.as_deref();
    file.map(std::path::absolute).transpose()
}

fn tell_speed(output: Output, view: &ReplicaView) {
    output.say(&announce::speed_line(&view.model, StepCost::of_load(&view.load)));
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

async fn prepare(config: Config, output: Output) -> anyhow::Result<Vec<PreparedModel>> {
    tokio::task::spawn_blocking(move || {
        let store = model::open_store(&config.store.value)?;
        let prepared = model::prepare_all(&config, &store)?;
        if let Some(bytes_max) = config.store_max.value {
            tell_collected(output, bytes_max, &store)?;
        }
        Ok(prepared)
    })
    .await?
}

/// After the models are in use, so that none of them goes.
fn tell_collected(output: Output, bytes_max: ByteSize, store: &Store) -> Result<(), StoreError> {
    let collected = store.collect(Some(bytes_max.bytes()))?;
    for removal in collected.removed {
        let (path, bytes) = (removal.file.path.display(), ByteSize::new(removal.file.bytes));
        output.say(&format!(
            "store    removed {path}, {bytes}: {}",
            removal.reason.words()
        ));
    }
    for error in collected.failed {
        tracing::warn!(%error, "a file that should leave the store could not be removed");
    }
    if collected.bytes_left > bytes_max.bytes() {
        let left = ByteSize::new(collected.bytes_left);
        output.say(&format!(
            "store    holds {left}, more than --store-max {bytes_max}: the rest is in use"
        ));
    }
    Ok(())
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

fn transport(config: &Config) -> anyhow::Result<Transport> {
    Ok(match config.tls()? {
        Some((certificate, key)) => Transport::tls(certificate, key)?,
        None => Transport::Plain,
    })
}

fn limits(config: &Config, address: SocketAddr) -> Limits {
    let metrics = if address.ip().is_loopback() {
        MetricsAccess::Everyone
    } else {
        MetricsAccess::WithKey
    };
    Limits {
        drain_max: DRAIN_MAX,
        metrics,
        seats: seats_max(config, files::raise_open_files_max()),
        ..Limits::default()
    }
}

fn seats_max(config: &Config, open_files_max: Option<u64>) -> SeatsMax {
    let asked = config.connections_max.value;
    let possible = open_files_max.map_or(asked as u64, |files| files.saturating_sub(FILES_KEPT).max(1));
    let total = asked.min(possible as usize);
    if total < asked {
        tracing::warn!(
            connections_max = total,
            "fewer connections than asked for: the hard limit on open files (ulimit -Hn) allows no more"
        );
    }
    let per_address = config.connections_per_address_max.value;
    SeatsMax {
        total,
        per_neighbourhood: per_address.unwrap_or(CONNECTIONS_PER_ADDRESS_MAX),
        // A number that was given holds for every address.
        per_loopback: per_address.unwrap_or(total),
    }
}
