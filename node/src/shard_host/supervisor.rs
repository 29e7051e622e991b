//! Keeps one replica alive: starts its shard host, carries frames, watches for progress, starts it again.
//!
//! Health is progress: a process that says nothing while it has work is as dead as one that ended, and one that does not even
//! say that it is there is dead whether it has work or not. Every start is a new
//! epoch, so that whatever an old process still said is dropped.

use super::coming::ComingFile;
use super::ear::{Ear, Heard, QUIET_LOOKS};
use super::epochs::Epochs;
use super::hub::Hub;
use super::pipeline::Pipeline;
use super::process::ShardProcess;
use super::setup::ShardSetup;
use super::stage::LinkSource;
use crate::actors::board::{Board, Phase, Where};
use crate::config::low::LogFormat;
use proto::Epoch;
use proto::engine::{FromEngine, Load, ReplicaInfo};
use proto::stage::StageAddress;
use proto::wire::{HEADER_BYTES, Header, Kind};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a replica is, over all its epochs.
#[derive(Clone)]
pub struct ReplicaPlan {
    pub model: String,
    /// Of the first epoch; the epoch is counted up from here.
    pub setup: ShardSetup,
    /// `None`: there are no other stages.
    pub link: Option<LinkSource>,
    /// `None`: all that is needed of the file is here.
    pub coming: Option<ComingFile>,
    /// Is told when the process has found that the file is damaged on this node's disk.
    pub damage: Arc<Notify>,
    pub log_format: LogFormat,
}

impl ReplicaPlan {
    /// With certificates as they are now.
    pub fn setup_now(&self) -> ShardSetup {
        let mut setup = self.setup.clone();
        if let Some(placed) = &mut setup.placed {
            placed.link = self.link.as_ref().map(LinkSource::setup);
        }
        setup
    }
}

/// How a replica came up the first time.
pub type FirstStart = Result<ReplicaInfo, String>;

/// What follows where a replica does not come up the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstFailure {
    /// Nothing: a person has asked for it, and has to read why.
    End,
    /// It is tried again, as after any later failure.
    TryAgain,
}

pub struct Supervisor {
    pub plan: ReplicaPlan,
    pub on_first_failure: FirstFailure,
    /// `None`: the whole model is here.
    pub pipeline: Option<Pipeline>,
    pub hub: Hub,
    pub board: Board,
    pub epochs: Epochs,
}

/// Why an epoch ended.
#[derive(thiserror::Error, Debug)]
enum EpochEnd {
    /// In its own words, for a person.
    #[error("{0}")]
    Failed(String),
    #[error("the shard host ended: {0}")]
    Exited(String),
    #[error("no progress for {QUIET_LOOKS} s while there was work")]
    Stuck,
    #[error("the shard host was stopped, or hangs: it has not said for seconds that it is there")]
    Hung,
    #[error("the pipe to the shard host: {0}")]
    Pipe(#[from] io::Error),
    #[error("{0}")]
    StageGone(String),
}

impl Supervisor {
    /// For as long as the node lives. What becomes of the first start that succeeds, or that is the last, goes to `first`.
    pub async fn run(&mut self, first: oneshot::Sender<FirstStart>) {
        let mut first = Some(first);
        let mut backoff = BACKOFF_MIN;
        loop {
            let epoch = self.plan.setup.epoch;
            self.epochs.begun(self.plan.setup.replica, epoch);
            self.board
                .starting(self.plan.setup.replica, epoch, &self.plan.model, Where::Here);
            let mut session = Session {
                supervisor: self,
                epoch,
                first: &mut first,
                port: None,
                load: Load::default(),
                is_ready: false,
            };
            let end = session.run().await;
            let was_ready = session.is_ready;
            if self.on_first_failure == FirstFailure::End
                && let Some(first) = first.take()
            {
                let _ = first.send(Err(end.to_string()));
                return;
            }
            self.down(&end).await;
            backoff = if was_ready {
                BACKOFF_MIN
            } else {
                (backoff * 2).min(BACKOFF_MAX)
            };
            sleep(backoff).await;
            self.plan.setup.epoch = Epoch(epoch.0 + 1);
        }
    }

    async fn down(&self, end: &EpochEnd) {
        let (replica, epoch) = (self.plan.setup.replica, self.plan.setup.epoch);
        tracing::error!(%replica, %epoch, model = self.plan.model, reason = %end, "replica down, starting it again");
        self.board.phase(
            replica,
            Phase::Down {
                reason: end.to_string(),
            },
        );
        self.hub.down(epoch).await;
    }
}

/// One epoch of one replica.
struct Session<'a> {
    supervisor: &'a Supervisor,
    epoch: Epoch,
    first: &'a mut Option<oneshot::Sender<FirstStart>>,
    /// Waited for where there are other stages.
    port: Option<oneshot::Sender<StageAddress>>,
    load: Load,
    is_ready: bool,
}

impl Session<'_> {
    async fn run(&mut self) -> EpochEnd {
        match self.serve().await {
            Ok(end) => end,
            Err(error) => EpochEnd::Pipe(error),
        }
    }

    async fn serve(&mut self) -> io::Result<EpochEnd> {
        let plan = &self.supervisor.plan;
        let mut process = ShardProcess::start(&plan.setup_now(), plan.log_format).await?;
        let stdout = process.stdout.take().expect("stdout was asked for");
        let stdin = process.stdin.take().expect("stdin was asked for");
        let (frames, outbox) = mpsc::unbounded_channel();
        // Apart from reading, so that a child that waits for us to read never waits for us to write.
        let writer = tokio::spawn(write_all(stdin, outbox));
        let (port, own) = oneshot::channel();
        self.port = Some(port);
        let pipeline = keep(self.supervisor.pipeline.as_ref(), self.epoch, own, frames.clone());
        let end = tokio::select! {
            end = self.listen(stdout, &frames) => end,
            reason = pipeline => Some(EpochEnd::StageGone(reason)),
            () = keep_trusted(plan.link.as_ref(), frames.clone()) => None,
            () = keep_told(plan.coming.as_ref(), frames.clone()) => None,
        };
        writer.abort();
        match end {
            Some(end) => Ok(end),
            None => Ok(EpochEnd::Exited(exit_words(process).await)),
        }
    }

    /// `None`: the pipe ended.
    async fn listen(
        &mut self,
        stdout: ChildStdout,
        frames: &mpsc::UnboundedSender<Vec<u8>>,
    ) -> Option<EpochEnd> {
        let mut ear = Ear::new(stdout);
        loop {
            match ear.next().await {
                Heard::Message(message) => {
                    if let Some(end) = self.take(message, frames).await {
                        return Some(end);
                    }
                }
                Heard::Ended => return None,
                Heard::Broken(error) => return Some(EpochEnd::Pipe(error)),
                Heard::Hung => return Some(EpochEnd::Hung),
                Heard::Quiet if self.has_work() => return Some(EpochEnd::Stuck),
                Heard::Quiet => {}
            }
        }
    }

    fn has_work(&self) -> bool {
        !self.is_ready || self.load.running + self.load.waiting > 0
    }

    async fn take(
        &mut self,
        message: FromEngine,
        frames: &mpsc::UnboundedSender<Vec<u8>>,
    ) -> Option<EpochEnd> {
        let Supervisor { plan, hub, board, .. } = self.supervisor;
        let (replica, epoch) = (plan.setup.replica, self.epoch);
        match message {
            FromEngine::Loading { permille } => board.phase(replica, Phase::Loading { permille }),
            FromEngine::Ready(info) => self.ready(info, frames.clone()).await,
            FromEngine::Failed { reason } => return Some(EpochEnd::Failed(reason)),
            FromEngine::Damaged { reason } => {
                plan.damage.notify_one();
                return Some(EpochEnd::Failed(reason));
            }
            FromEngine::Tokens(batch) => hub.tokens(epoch, batch).await,
            refused @ FromEngine::Refused { .. } => hub.refused(epoch, refused).await,
            FromEngine::Load(load) => {
                self.load = load;
                board.load(replica, load);
                hub.load(epoch, load).await;
            }
            FromEngine::Listening(address) => {
                if let Some(port) = self.port.take() {
                    let _ = port.send(*address);
                }
            }
            FromEngine::Pipeline(used) => {
                board.pipeline(replica, (*used).clone());
                hub.pipeline(*used);
            }
            FromEngine::Drained | FromEngine::Alive => {}
        }
        None
    }

    async fn ready(&mut self, info: ReplicaInfo, frames: mpsc::UnboundedSender<Vec<u8>>) {
        let Supervisor { hub, board, .. } = self.supervisor;
        tracing::info!(replica = %info.replica, epoch = %info.epoch, what = info.description, "replica ready");
        self.is_ready = true;
        hub.ready(info.clone(), frames).await;
        board.phase(info.replica, Phase::Ready(info.clone()));
        if let Some(first) = self.first.take() {
            let _ = first.send(Ok(info));
        }
    }
}

/// Never ends where there is no pipeline.
async fn keep(
    pipeline: Option<&Pipeline>,
    epoch: Epoch,
    own: oneshot::Receiver<StageAddress>,
    to_head: mpsc::UnboundedSender<Vec<u8>>,
) -> String {
    match pipeline {
        Some(pipeline) => pipeline.keep(epoch, own, to_head).await,
        None => std::future::pending().await,
    }
}

/// Never ends.
pub(super) async fn keep_trusted(link: Option<&LinkSource>, to_stage: mpsc::UnboundedSender<Vec<u8>>) {
    match link {
        Some(link) => link.keep_trusted(to_stage).await,
        None => std::future::pending().await,
    }
}

/// Never ends.
pub(super) async fn keep_told(coming: Option<&ComingFile>, to_process: mpsc::UnboundedSender<Vec<u8>>) {
    match coming {
        Some(coming) => coming.clone().keep_told(to_process).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn write_all(mut stdin: ChildStdin, mut outbox: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(frame) = outbox.recv().await {
        if stdin.write_all(&frame).await.is_err() {
            // The reading side learns how the process ended.
            return;
        }
    }
}

/// `None`: the pipe ended between two frames.
pub(super) async fn read_frame(stdout: &mut ChildStdout) -> io::Result<Option<FromEngine>> {
    let mut header_bytes = [0; HEADER_BYTES];
    if let Err(error) = stdout.read_exact(&mut header_bytes).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof {
            Ok(None)
        } else {
            Err(error)
        };
    }
    let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let header = Header::parse(&header_bytes, Kind::FromEngine).map_err(wrong)?;
    let mut payload = vec![0; header.length];
    stdout.read_exact(&mut payload).await?;
    header.open(&header_bytes, &payload).map(Some).map_err(wrong)
}

pub(super) async fn exit_words(mut process: ShardProcess) -> String {
    match timeout(Duration::from_secs(5), &mut process.exited).await {
        Ok(Ok(Ok(status))) => status.to_string(),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) | Err(_) => "it closed its pipe and had to be killed".to_owned(),
    }
}
