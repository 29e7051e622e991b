//! A running node: everything started in order, and ended in order.

use super::announce::{self, Output, Ready, ReadyModel};
use super::front;
use super::meeting;
use super::model::{self, PreparedModel};
use super::models::{self, TooBig};
use super::replicas::{OwnModel, OwnReplicas, Sorted};
use super::shared::SharedFiles;
use super::signals::Signals;
use super::waiting::WaitingModel;
use crate::actors::board::{Board, ReplicaView, Where};
use crate::actors::gateway::RouterGateway;
use crate::actors::machine::{self, Mailbox};
use crate::actors::router::{RouterMessage, RouterWorld};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::high::Auth;
use crate::control::report::DeployStep;
use crate::control::server::{self, ControlServer};
use crate::gateway::{Gateway, ServedModel};
use crate::http::{self, Limits, Transport};
use crate::peers::entry::{self, Entry, Place};
use crate::peers::folder::DataFolder;
use crate::peers::weights::Shelf;
use crate::peers::{RemoteReplicas, directory};
use crate::placement::deploy::{DeployWish, Deploying};
use crate::placement::hosting::Hosting;
use crate::placement::leader::Leading;
use crate::placement::profile::{self, Profiling};
use crate::shard_host::epochs::Epochs;
use crate::shard_host::supervisor::FirstStart;
use crate::state::StateError;
use crate::state::keys::{self, LocalKey};
use crate::store::Use;
use crate::telemetry::{otlp, recorder, spans};
use anyhow::{Context, anyhow, bail};
use coordinator::cost::StepCost;
use coordinator::router::{Router, RouterConfig};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Messages that may wait for the router from producers that can wait.
const ROUTER_CREDITS: usize = 4096;
/// From the signal to the end of the process; what still runs then is cut off.
const DRAIN_MAX: Duration = Duration::from_secs(4);
/// A little earlier their clients hear why.
const GIVE_UP_AFTER: Duration = Duration::from_millis(3500);

/// For Raft, whose last write a full disk may never take.
const STOP_MAX: Duration = Duration::from_secs(1);

/// How long a node without a model of its own waits for others'.
const OTHERS_MAX: Duration = Duration::from_secs(10);

const REMOVED: &str = "this node has been removed from its cluster; to let it in again, start it with an empty --data-dir and \
                       a new token";
/// More than one look of `directory::removed`: whoever waits for the same began to look at another moment.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

const ASK_AGAIN: Duration = Duration::from_millis(250);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(60);

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
    entry: Entry,
    /// Models on their way up, with what clients will see of them.
    starting: JoinSet<(ServedModel, FirstStart)>,
    supervisors: JoinSet<()>,
    /// The models in the store, kept there while they are served.
    in_use: Vec<Use>,
    output: Output,
    key: Option<String>,
    /// What HTTPS is served with.
    certificate: Option<PathBuf>,
}

impl Node {
    /// What is quick and may fail comes first, so that nothing is fetched or loaded in vain.
    async fn start(config: &Config, output: Output) -> anyhow::Result<Node> {
        let transport = front::transport(config)?;
        models::look_for_files(&config.models.value)?;
        let exporter = config.otlp_endpoint.value.as_deref();
        let exporter = exporter.map(otlp::start).transpose()?;
        let http = front::bind(config.http.value).await?;
        let address = http.local_addr()?;
        let place = Place {
            data_dir: &config.data_dir.value,
            quic: config.quic.value,
            http_scheme: transport.scheme(),
            http: address,
        };
        let entry = entry::enter(&place, config.join.value.as_ref()).await?;
        output.say(&announce::entry_line(&entry));
        let (member, folder) = (entry.state.member.clone(), Arc::clone(&entry.folder));
        folder.forget_removed();
        tokio::select! {
            node = Node::set_up(config, transport, exporter, http, entry, output) => node,
            // What the cluster has to agree on first would be waited for in vain.
            () = directory::removed(member) => Err(removed(&folder)),
        }
    }

    async fn set_up(
        config: &Config,
        transport: Transport,
        exporter: Option<impl Future<Output = ()> + Send + 'static>,
        http: TcpListener,
        entry: Entry,
        output: Output,
    ) -> anyhow::Result<Node> {
        let address = http.local_addr()?;
        let shelf = Shelf::new(model::open_store(&config.store.value)?);
        entry.desk.lend(shelf.clone());
        let files = SharedFiles::of(&entry, &shelf, output);
        let mut models = models::own(config, &entry, &files).await?;
        tell_plan(config, &models.whole, output);
        let key = first_key(config, &entry, output).await?;
        let Routing {
            gateway,
            mailbox,
            ended: router_ended,
            clock,
        } = Routing::start(config, &entry).await?;
        entry.desk.show(gateway.board.clone());
        let deploying = deploying(config, &entry, &shelf, &gateway);
        let mut supervisors = JoinSet::new();
        let control = ControlServer {
            scheme: transport.scheme(),
            http: address,
            board: gateway.board.clone(),
            state: Arc::clone(&entry.state),
            clock,
            local_key: Arc::clone(&gateway.local_key),
            desk: Arc::clone(&entry.desk),
            folder: Arc::clone(&entry.folder),
            deploying: Arc::clone(&deploying),
            certificate: own_certificate(config)?,
        };
        supervisors.spawn(control.serve(socket(config)?));
        if let Some(exporter) = exporter {
            supervisors.spawn(exporter);
        }
        let mut node = Node {
            http,
            transport,
            limits: front::limits(config, address, DRAIN_MAX),
            gateway,
            mailbox,
            router_ended,
            entry,
            starting: JoinSet::new(),
            supervisors,
            in_use: mem::take(&mut models.placed_use),
            output,
            key,
            certificate: config.tls_cert.value.clone(),
        };
        node.follow_others();
        // Before any of them takes it.
        let memory_bytes = profile::memory_bytes(config, models.memory_bytes());
        let (config, epochs) = (Arc::new(config.clone()), epochs(&node.entry)?);
        let own = node.own_replicas(&config, files, epochs.clone());
        node.start_replicas(own, models.whole, models.waiting).await?;
        node.start_placement(config, shelf, memory_bytes, &deploying, epochs);
        node.deploy_all(models.too_big, &deploying);
        Ok(node)
    }

    /// What this node was to serve and cannot carry.
    fn deploy_all(&mut self, models: Vec<TooBig>, deploying: &Arc<Deploying>) {
        for model in models {
            self.output
                .say(&announce::too_big_line(&model.named.name, &model.reason));
            self.supervisors.spawn(deploy(Arc::clone(deploying), model));
        }
    }

    /// What the cluster puts here, and the placer where this node leads.
    fn start_placement(
        &mut self,
        config: Arc<Config>,
        shelf: Shelf,
        memory_bytes: u64,
        deploying: &Deploying,
        epochs: Epochs,
    ) {
        let profiling = Profiling {
            state: Arc::clone(&self.entry.state),
            peers: self.entry.peers.clone(),
            config: Arc::clone(&config),
            board: self.gateway.board.clone(),
            plans: deploying.plans.clone(),
            memory_bytes,
        };
        self.supervisors.spawn(profiling.keep());
        let leading = Leading {
            state: Arc::clone(&self.entry.state),
            outlook: deploying.outlook.clone(),
            board: self.gateway.board.clone(),
        };
        self.supervisors.spawn(leading.keep());
        let hosting = Hosting {
            own: self.entry.state.node(),
            applied: self.entry.state.applied_state().clone(),
            config,
            shelf,
            identity: Arc::clone(&self.entry.identity),
            bundle: Arc::clone(&self.entry.bundle),
            quic: nodes_quic(&self.entry),
            peers: self.entry.peers.clone(),
            desk: Arc::clone(&self.entry.desk),
            router: self.mailbox.clone(),
            board: self.gateway.board.clone(),
            gateway: Arc::clone(&self.gateway),
            epochs,
        };
        self.supervisors.spawn(hosting.follow());
    }

    /// Replicas on other nodes come and go as the log says.
    fn follow_others(&mut self) {
        let remote = RemoteReplicas {
            own: self.entry.state.node(),
            applied: self.entry.state.applied_state().clone(),
            peers: self.entry.peers.clone(),
            router: self.mailbox.clone(),
            board: self.gateway.board.clone(),
            served: Arc::clone(&self.gateway),
        };
        self.supervisors.spawn(remote.follow());
    }

    /// What the cluster has named. Where it cannot agree, what it named before is served, and the rest when it can again.
    async fn start_replicas(
        &mut self,
        own: OwnReplicas,
        prepared: Vec<PreparedModel>,
        waiting: Vec<WaitingModel>,
    ) -> anyhow::Result<()> {
        let here = prepared.into_iter().map(Box::new).map(OwnModel::Here);
        let waiting = waiting.into_iter().map(Box::new).map(OwnModel::Waiting);
        let Sorted { named, later } = own.sort(here.chain(waiting).collect()).await?;
        for (model, record) in named {
            let model = match model {
                OwnModel::Here(model) => *model,
                OwnModel::Waiting(waiting) => {
                    self.supervisors.spawn(own.clone().wait_for(*waiting, record));
                    continue;
                }
            };
            let starting = own.start(model, &record).await?;
            self.supervisors.spawn(starting.keeper.run(starting.on_first));
            self.in_use.push(starting.in_use);
            let (served, first) = (starting.served, starting.first);
            self.starting.spawn(async move {
                let first = first.await;
                (
                    served,
                    first.unwrap_or_else(|_| Err("its supervisor died".to_owned())),
                )
            });
        }
        if let Some(later) = later {
            self.output.say(announce::NO_QUORUM);
            self.supervisors.spawn(own.start_later(later));
        }
        let (desk, state) = (Arc::clone(&self.entry.desk), Arc::clone(&self.entry.state));
        self.supervisors.spawn(async move {
            desk.follow_drains(state.node(), state.applied_state().clone())
                .await;
        });
        Ok(())
    }

    fn own_replicas(&self, config: &Arc<Config>, files: SharedFiles, epochs: Epochs) -> OwnReplicas {
        OwnReplicas {
            config: Arc::clone(config),
            state: Arc::clone(&self.entry.state),
            desk: Arc::clone(&self.entry.desk),
            gateway: Arc::clone(&self.gateway),
            epochs,
            files,
        }
    }

    async fn serve(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let (stop, stopped) = oneshot::channel::<()>();
        let router = http::router(self.gateway.clone(), self.limits.clone());
        let address = self.http.local_addr()?;
        let scheme = self.transport.scheme();
        tokio::select! {
            () = meeting::meet_others(&self.gateway) => {}
            () = signals.next() => return Ok(()),
        }
        let (listener, transport, limits) = (self.http, self.transport, self.limits);
        let mut serving = tokio::spawn(http::serve(listener, transport, router, limits, async move {
            let _ = stopped.await;
        }));
        let ready = come_up(&self.gateway, &mut self.starting);
        tokio::select! {
            models = ready => {
                let models = models?;
                self.gateway.board.views().values().filter(|view| view.place == Where::Here).for_each(|view| tell_speed(self.output, view));
                let node = self.entry.state.node();
                let quic = nodes_quic(&self.entry);
                let ready = Ready { node, quic, scheme, http: address, key: self.key.as_deref(), auth: self.gateway.auth, models: &models, certificate: self.certificate.as_deref() };
                self.output.ready(&ready);
            }
            () = signals.next() => return Ok(()),
            () = directory::removed(self.entry.state.member.clone()) => return Err(removed(&self.entry.folder)),
        }
        let ending = tokio::select! {
            () = signals.next() => Ending::Told,
            ended = &mut serving => bail!("the HTTP listener failed: {:?}", ended),
            () = directory::removed(self.entry.state.member.clone()) => {
                // Whoever asked this very node for it hears so.
                sleep(LAST_ANSWERS).await;
                Ending::Removed
            }
            _ = &mut self.router_ended => bail!("the router ended by a fault of its own: please report it"),
        };
        tracing::info!("draining: running streams may end, nothing new is taken");
        let (drained, _) = oneshot::channel();
        self.mailbox.send(RouterMessage::Drain { drained }).await;
        let _ = stop.send(());
        tokio::spawn(give_up(self.mailbox.clone()));
        tokio::select! {
            _ = serving => {}
            () = signals.next() => tracing::warn!("ended at once"),
        }
        let _ = timeout(FLUSH_MAX, spans::flush()).await;
        self.supervisors.shutdown().await;
        tokio::select! {
            () = self.entry.state.member.stop() => {}
            () = signals.next() => tracing::warn!("ended at once"),
            () = sleep(STOP_MAX) => tracing::warn!("the log takes nothing: ended without it"),
        }
        self.entry.peers.close().await;
        drop(self.in_use);
        match ending {
            Ending::Told => Ok(()),
            Ending::Removed => Err(removed(&self.entry.folder)),
        }
    }
}

/// Why a node that served ends.
enum Ending {
    Told,
    Removed,
}

/// What a person reads who started it, or who looks for why it has ended.
fn removed(folder: &DataFolder) -> anyhow::Error {
    if let Err(error) = folder.remember_removed() {
        tracing::warn!(%error, "a service manager will start this node again and again");
    }
    anyhow!(REMOVED)
}

/// Clients whose answers are about to be cut off hear why, and that they may ask again.
async fn give_up(mailbox: Mailbox<RouterMessage>) {
    sleep(GIVE_UP_AFTER).await;
    mailbox.send(RouterMessage::GiveUp).await;
}

fn epochs(entry: &Entry) -> anyhow::Result<Epochs> {
    let path = entry.folder.epochs();
    let epochs = Epochs::open(path.clone());
    epochs.with_context(|| format!("{}, which says where epochs begin", path.display()))
}

fn nodes_quic(entry: &Entry) -> SocketAddr {
    entry
        .peers
        .local_address()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// The router, and all that HTTP sees of it.
struct Routing {
    gateway: Arc<RouterGateway>,
    mailbox: Mailbox<RouterMessage>,
    ended: tokio::task::JoinHandle<()>,
    clock: Clock,
}

impl Routing {
    async fn start(config: &Config, entry: &Entry) -> anyhow::Result<Routing> {
        let clock = Clock::start();
        let router = Router::new(RouterConfig::default());
        let world = RouterWorld::new(Arc::clone(&entry.state));
        let (mailbox, ended) = machine::spawn(router, world, clock, ROUTER_CREDITS).await?;
        let gateway = Arc::new(RouterGateway {
            mailbox: mailbox.clone(),
            state: Arc::clone(&entry.state),
            board: Board::default(),
            auth: config.auth.value,
            local_key: Arc::new(LocalKey::draw()),
            models: Default::default(),
            recorded: recorder::install()?,
        });
        Ok(Routing {
            gateway,
            mailbox,
            ended,
            clock,
        })
    }
}

fn tell_plan(config: &Config, prepared: &[PreparedModel], output: Output) {
    let models = prepared.iter().flat_map(|model| model.plan_lines(config));
    for line in announce::machine_lines(config).into_iter().chain(models) {
        output.say(&line);
    }
}

/// `Some` where one was made just now; then it is told. A node that joins finds the keys of its cluster.
async fn first_key(config: &Config, entry: &Entry, output: Output) -> Result<Option<String>, StateError> {
    let is_alone = entry.state.applied().members().count() == 1;
    let key = match config.auth.value {
        Auth::Keys if is_alone => keys::ensure_first_key(&entry.state).await?,
        Auth::Keys | Auth::Open => None,
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
    if starting.is_empty() && gateway.state.applied().models().next().is_some() {
        others_models(gateway).await;
    }
    while let Some(started) = starting.join_next().await {
        let (mut served, first) = started?;
        let info = first.map_err(anyhow::Error::msg)?;
        served.context_tokens_max = info.context_tokens_max;
        gateway.add_model(served);
    }
    let models = gateway.models();
    Ok(models.iter().map(|served| ReadyModel::of(served)).collect())
}

/// A node that holds no model is ready when it can serve what others hold, or when they take too long.
async fn others_models(gateway: &RouterGateway) {
    let any = async {
        while gateway.models().is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(OTHERS_MAX, any).await.is_err() {
        tracing::warn!("no other node serves a model yet; this one will as soon as one does");
    }
}

/// Tells the cluster of a model that this node was to serve and cannot carry, unless it knows of it; then people may have
/// asked for more of it.
async fn deploy(deploying: Arc<Deploying>, model: TooBig) {
    let named = model.named;
    if deploying.state.applied().deployment(&named.name).is_some() {
        return;
    }
    let wish = DeployWish {
        model: format!("{}={}", named.name, named.spec),
        replicas: None,
        ranks: None,
    };
    let mut pause = ASK_AGAIN;
    loop {
        match deploying.deploy(&wish).await {
            Ok(report) if report.step != DeployStep::Reading => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(model = named.name, error, "it is not deployed yet");
                pause = (pause * 2).min(ASK_AGAIN_MAX);
            }
        }
        sleep(pause).await;
    }
}

fn deploying(config: &Config, entry: &Entry, shelf: &Shelf, gateway: &Arc<RouterGateway>) -> Arc<Deploying> {
    Arc::new(Deploying::new(
        Arc::clone(&entry.state),
        shelf.clone(),
        Arc::new(config.clone()),
        Arc::clone(gateway),
        entry.desk.outlook.clone(),
    ))
}
