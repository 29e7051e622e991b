//! The process `cluster shard-host`.

use super::ear::BEAT_EVERY;
use super::engine_loop::{EngineLoop, Hands, LoopMessage};
use super::frames;
use super::grammars::GrammarDesk;
use super::landed::LandedParts;
use super::prepare::{BLOCK_TOKENS, MemoryPlan, ModelFile, PrepareError};
use super::ranks::{RankError, RankPlan, Ranks, describe};
use super::setup::{FileState, ShardSetup};
use super::stage::head::Head;
use super::stage::{LinkTrust, follower};
use super::warm_up;
use crate::clock::Clock;
use crate::os;
use crate::store::chunks::Manifest;
use anyhow::{Context, bail};
use coordinator::cost::StepCost;
use coordinator::engine::{Engine, EngineConfig};
use coordinator::placer::layout::Room;
use kernels::cpu::Level;
use proto::engine::{FromEngine, ReplicaInfo, ToEngine};
use proto::stage::{StageAddresses, StagePart};
use proto::step::{StepPlan, Verdict};
use proto::wire::{self, Kind};
use proto::{Epoch, SequenceId};
use shard::{LogitRow, ModelConfig, SampledToken, Stage, StepInput};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// How often the node hears that the other stages are waited for.
pub const STILL_WAITING_EVERY: Duration = Duration::from_secs(5);
/// What this process shows to other stages, once it has a port for them.
pub type Trust = Arc<OnceLock<LinkTrust>>;

/// Messages of the node that may wait for the engine; beyond it the node's pipe fills.
const MAILBOX_MESSAGES: usize = 1024;

/// Runs until the node closes the pipe. `parent` is the node's process.
pub fn run(parent: u32) -> anyhow::Result<()> {
    os::death::die_with_parent(parent)?;
    let setup: ShardSetup =
        frames::read(&mut io::stdin().lock(), Kind::ShardSetup)?.context("the node has sent no setup")?;
    let (sender, mailbox) = sync_channel(MAILBOX_MESSAGES);
    let trust = Trust::default();
    let landed = Arc::new(LandedParts::default());
    let (of_node, renewed, told) = (sender.clone(), Arc::clone(&trust), Arc::clone(&landed));
    thread::Builder::new()
        .name("mailbox".to_owned())
        .spawn(move || receive(&of_node, &renewed, &told))?;
    let epoch = setup.epoch;
    thread::Builder::new()
        .name("beat".to_owned())
        .spawn(move || beat(epoch))?;
    // Only now, so that these threads keep their priority.
    let ended = match &setup.placed {
        Some(placed) if !placed.is_head() => {
            let link = placed
                .link
                .as_ref()
                .context("a stage without a way to the others")?;
            follower::run(&setup, placed, link, &trust, landed)
        }
        Some(_) | None => serve(&setup, sender, &mailbox, &trust, landed),
    };
    if let Err(error) = &ended {
        send(&setup, &failed(error))?;
    }
    ended
}

fn failed(error: &anyhow::Error) -> FromEngine {
    let reason = format!("{error:#}");
    let prepare = match error.downcast_ref::<RankError>() {
        Some(RankError::Prepare(error)) => Some(error),
        Some(RankError::Thread(_) | RankError::Died) => None,
        None => error.downcast_ref::<PrepareError>(),
    };
    match prepare.is_some_and(PrepareError::is_damage) {
        true => FromEngine::Damaged { reason },
        false => FromEngine::Failed { reason },
    }
}

/// The end of the pipe ends the process, also in the middle of a step: nobody is left to hear its result.
fn receive(mailbox: &SyncSender<LoopMessage>, trust: &Trust, parts: &LandedParts) {
    let mut stdin = io::stdin().lock();
    loop {
        match frames::read(&mut stdin, Kind::ToEngine) {
            Ok(Some(ToEngine::Trust(renewed))) => {
                let renewed = trust.get().map_or(Ok(()), |trust| trust.renew(&renewed));
                if let Err(error) = renewed {
                    tracing::error!(%error, "what the node has renewed does not fit");
                }
            }
            Ok(Some(ToEngine::Landed(landed))) => parts.take(*landed),
            Ok(Some(message)) => {
                if mailbox.send(LoopMessage::FromNode(message)).is_err() {
                    return;
                }
            }
            Ok(None) => exit(0),
            Err(error) => {
                tracing::error!(%error, "the pipe from the node");
                exit(1);
            }
        }
    }
}

/// Until the node has gone, which the mailbox's thread sees.
fn beat(epoch: Epoch) {
    while send_in(epoch, &FromEngine::Alive).is_ok() {
        thread::sleep(BEAT_EVERY);
    }
}

/// What of the model is here.
pub struct Loaded {
    pub ranks: Ranks,
    pub stage: Stage,
    /// Values in a row of the residual.
    pub hidden: usize,
    pub vocabulary: u32,
    /// Rows that ranks have room for.
    pub step_tokens_max: u32,
    /// Rows that its device multiplies at once.
    pub rows_at_once: u32,
    pub info: ReplicaInfo,
    /// As measured, where it could be.
    pub cost: Option<StepCost>,
    file: Arc<ModelFile>,
}

/// From here on this thread computes, below the control plane. `landed` is what the node tells of a file that is coming.
pub fn load(setup: &ShardSetup, landed: Arc<LandedParts>) -> anyhow::Result<Loaded> {
    os::priority::below_control_plane();
    let file = Arc::new(open(setup, landed)?);
    let gguf = file.parse()?;
    let config = file.config(&gguf)?;
    let stage = stage_of(setup, &config)?;
    let ranks = setup.ranks as usize;
    let need = file.memory(&gguf, &config, &stage, ranks)?;
    let context = config.context_tokens_max;
    let available = os::memory::available_bytes().min(setup.memory_bytes_max.unwrap_or(u64::MAX));
    let memory = match &setup.placed {
        Some(placed) => MemoryPlan::with_room(&need, room_of(&placed.part()), context, available)?,
        None => MemoryPlan::new(&need, context, available)?,
    };
    let level = setup.cpu_level.as_deref().map(str::parse).transpose()?;
    let plan = RankPlan {
        ranks,
        threads: setup.threads as usize,
        level,
        stage: stage.clone(),
        memory,
        packed: Some(PathBuf::from(&setup.packed)),
    };
    let mut reporter = Reporter {
        setup,
        total: need.weight_bytes.max(1),
        bytes: 0,
        said: None,
    };
    let mut ranks = Ranks::load(&file, &plan, &mut |bytes| reporter.read(bytes))?;
    file.forget_pages();
    let cost = measure(&mut ranks, &stage, &config, memory.room)?;
    let info = ReplicaInfo {
        replica: setup.replica,
        epoch: setup.epoch,
        context_tokens_max: memory.context_tokens_max,
        block_tokens: BLOCK_TOKENS,
        blocks: memory.room.blocks,
        numerics: shard::numerics_fingerprint(&config, &gguf),
        description: describe(&plan, &setup.model, config.kv),
    };
    Ok(Loaded {
        ranks,
        stage,
        hidden: config.hidden,
        vocabulary: config.vocabulary as u32,
        step_tokens_max: memory.room.step_tokens_max,
        rows_at_once: Level::choose(plan.level).rows_at_once(),
        info,
        cost,
        file,
    })
}

fn open(setup: &ShardSetup, landed: Arc<LandedParts>) -> anyhow::Result<ModelFile> {
    let manifest =
        Manifest::from_bytes(&setup.manifest).context("the node has sent no manifest of the file")?;
    let file = ModelFile::map(Path::new(&setup.model_path), setup.kv_cache.format())?.verified(manifest);
    match setup.file {
        FileState::Here => Ok(file),
        FileState::Coming => {
            tracing::info!(model = setup.model, "loading weights as they come");
            Ok(file.coming(landed))
        }
    }
}

fn room_of(part: &StagePart) -> Room {
    Room {
        blocks: part.blocks,
        step_tokens_max: part.step_tokens_max,
    }
}

fn stage_of(setup: &ShardSetup, config: &ModelConfig) -> anyhow::Result<Stage> {
    let Some(placed) = &setup.placed else {
        return Ok(config.whole());
    };
    let part = placed.part();
    let layers = part.layer_first as usize..part.layer_end as usize;
    Stage::new(layers.clone(), config.layers).with_context(|| {
        format!(
            "the cluster has placed layers {} to {} here, and the model has {}: it is another file than was deployed",
            layers.start, layers.end, config.layers
        )
    })
}

/// Steps of this stage alone, with rows of nothing where others come before it.
fn measure(
    ranks: &mut Ranks,
    stage: &Stage,
    config: &ModelConfig,
    room: Room,
) -> anyhow::Result<Option<StepCost>> {
    let compute = |mut input: StepInput| {
        if !stage.embeds() {
            input.residual = vec![0.0; input.rows() * config.hidden];
        }
        let wanted = match stage.samples() {
            true => Vec::new(),
            false => input
                .passes
                .iter()
                .flat_map(|pass| &pass.logits)
                .cloned()
                .collect(),
        };
        let mut output = ranks.step(input)?;
        output.sampled.extend(wanted.iter().map(made_up));
        Ok(output)
    };
    warm_up::measure(compute, config.vocabulary as u32, room).context("in the first steps")
}

/// For a stage that knows no tokens.
fn made_up(wanted: &LogitRow) -> (SequenceId, SampledToken) {
    let token = SampledToken {
        id: 0,
        score: None,
        verdict: Verdict::Continue,
    };
    (wanted.sequence, token)
}

/// Tells the node about the loading: once for each percent, and that it still goes on while nothing comes.
struct Reporter<'a> {
    setup: &'a ShardSetup,
    total: u64,
    bytes: u64,
    said: Option<u16>,
}

impl Reporter<'_> {
    fn read(&mut self, bytes: u64) {
        let percent = u16::try_from(bytes.min(self.total) * 100 / self.total).unwrap_or(100);
        let is_waiting = std::mem::replace(&mut self.bytes, bytes) == bytes;
        if is_waiting || self.said != Some(percent) {
            self.said = Some(percent);
            // A node that has gone is noticed by the mailbox.
            let _ = send(
                self.setup,
                &FromEngine::Loading {
                    permille: percent * 10,
                },
            );
        }
    }
}

/// The whole of a model, or the head of a pipeline.
fn serve(
    setup: &ShardSetup,
    sender: SyncSender<LoopMessage>,
    mailbox: &Receiver<LoopMessage>,
    trust: &Trust,
    landed: Arc<LandedParts>,
) -> anyhow::Result<()> {
    let mut head = match &setup.placed {
        Some(placed) => {
            let link = placed.link.as_ref();
            link.map(|link| Head::start(setup, placed, link, sender.clone()))
                .transpose()?
        }
        None => None,
    };
    if let Some(head) = &head {
        let _ = trust.set(head.trust());
        send(setup, &FromEngine::Listening(Box::new(head.address())))?;
    }
    let Loaded {
        file,
        mut ranks,
        hidden,
        step_tokens_max,
        rows_at_once,
        info,
        mut cost,
        ..
    } = load(setup, landed)?;
    if let Some(head) = &mut head {
        let stages = wait_for_stages(setup, mailbox)?;
        let others = head.connect(&stages, info.numerics, || still_loading(setup))?;
        cost = cost.map(|own| own.then(others));
    }
    let grammars = GrammarDesk::start(file, sender)?;
    let config = EngineConfig {
        block_tokens: info.block_tokens,
        blocks: info.blocks,
        context_tokens_max: info.context_tokens_max,
        rows_at_once,
        cost_measured: cost,
        stages: setup
            .placed
            .as_ref()
            .map_or(1, |placed| placed.parts.len() as u32),
        ..EngineConfig::for_replica(info.replica, info.epoch)
    }
    .with_steps_of(step_tokens_max);
    let engine = Engine::new(config);
    if cost.is_some() {
        // Before anything else, so that whoever hears that it is ready knows how fast.
        send(setup, &FromEngine::Load(engine.load()))?;
    }
    send(setup, &FromEngine::Ready(info))?;
    let hands = Hands {
        launch: |plan: &StepPlan, input: &StepInput| match &mut head {
            Some(head) => head.launch(plan, input),
            None => Ok(()),
        },
        compute: |input| ranks.step(input),
        hidden,
        compile: |submit| grammars.compile(submit),
        send: |message: &FromEngine| send(setup, message),
    };
    EngineLoop::new(engine, hands, Clock::start()).run(mailbox)?;
    Ok(())
}

/// So that it is not taken for stuck.
fn still_loading(setup: &ShardSetup) -> io::Result<()> {
    send(setup, &FromEngine::Loading { permille: 1000 })
}

/// The node says where they are once all have opened their ports.
fn wait_for_stages(setup: &ShardSetup, mailbox: &Receiver<LoopMessage>) -> anyhow::Result<StageAddresses> {
    loop {
        match mailbox.recv_timeout(STILL_WAITING_EVERY) {
            Ok(LoopMessage::FromNode(ToEngine::Stages(stages))) => return Ok(*stages),
            Ok(LoopMessage::StageLost { reason }) => {
                bail!("a stage was lost before all were there: {reason}")
            }
            Ok(LoopMessage::FromNode(
                ToEngine::Submit(_)
                | ToEngine::Cancel { .. }
                | ToEngine::Drain
                | ToEngine::Trust(_)
                | ToEngine::Landed(_),
            )) => {
                tracing::warn!("a message for an engine that has not begun")
            }
            Ok(LoopMessage::Compiled(_) | LoopMessage::Residual(_) | LoopMessage::Resume { .. }) => {}
            Err(RecvTimeoutError::Timeout) => still_loading(setup)?,
            Err(RecvTimeoutError::Disconnected) => bail!("the node has closed the pipe"),
        }
    }
}

pub fn send(setup: &ShardSetup, message: &FromEngine) -> io::Result<()> {
    send_in(setup.epoch, message)
}

fn send_in(epoch: Epoch, message: &FromEngine) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&wire::frame(Kind::FromEngine, epoch.0, message))?;
    stdout.flush()
}
