//! The process `cluster shard-host`.

use super::engine_loop::{EngineLoop, Hands, LoopMessage};
use super::frames;
use super::grammars::GrammarDesk;
use super::prepare::{BLOCK_TOKENS, MemoryPlan, ModelFile};
use super::ranks::{RankPlan, Ranks, describe};
use super::setup::ShardSetup;
use super::warm_up;
use crate::clock::Clock;
use crate::os;
use anyhow::Context;
use coordinator::cost::StepCost;
use coordinator::engine::{Engine, EngineConfig};
use proto::engine::{FromEngine, ReplicaInfo};
use proto::wire::{self, Kind};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Messages of the node that may wait for the engine; beyond it the node's pipe fills.
const MAILBOX_MESSAGES: usize = 1024;

/// Runs until the node closes the pipe. `parent` is the node's process.
pub fn run(parent: u32) -> anyhow::Result<()> {
    os::death::die_with_parent(parent)?;
    let setup: ShardSetup =
        frames::read(&mut io::stdin().lock(), Kind::ShardSetup)?.context("the node has sent no setup")?;
    let (sender, mailbox) = sync_channel(MAILBOX_MESSAGES);
    let of_node = sender.clone();
    thread::Builder::new()
        .name("mailbox".to_owned())
        .spawn(move || receive(&of_node))?;
    // Only now, so that the mailbox's thread keeps its priority.
    os::priority::below_control_plane();
    match load(&setup) {
        Ok(replica) => serve(replica, &setup, sender, &mailbox),
        Err(error) => Ok(send(
            &setup,
            &FromEngine::Failed {
                reason: format!("{error:#}"),
            },
        )?),
    }
}

/// The end of the pipe ends the process, also in the middle of a step: nobody is left to hear its result.
fn receive(mailbox: &SyncSender<LoopMessage>) {
    let mut stdin = io::stdin().lock();
    loop {
        match frames::read(&mut stdin, Kind::ToEngine) {
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

struct Loaded {
    file: Arc<ModelFile>,
    ranks: Ranks,
    info: ReplicaInfo,
    /// As measured, where it could be.
    cost: Option<StepCost>,
}

fn load(setup: &ShardSetup) -> anyhow::Result<Loaded> {
    let path = Path::new(&setup.model_path);
    let file = Arc::new(ModelFile::map(path, setup.kv_cache.format())?);
    let gguf = file.parse()?;
    let config = file.config(&gguf)?;
    let ranks = setup.ranks as usize;
    let need = file.memory(&gguf, &config, ranks)?;
    let memory = MemoryPlan::new(&need, config.context_tokens_max, os::memory::available_bytes())?;
    let level = setup.cpu_level.as_deref().map(str::parse).transpose()?;
    let plan = RankPlan {
        ranks,
        threads: setup.threads as usize,
        level,
        memory,
        packed: Some(PathBuf::from(&setup.packed)),
    };
    let mut reporter = Reporter {
        setup,
        total: need.weight_bytes.max(1),
        said: None,
    };
    let mut ranks = Ranks::load(&file, &plan, &mut |bytes| reporter.read(bytes))?;
    let vocabulary = config.vocabulary as u32;
    let cost = warm_up::measure(|input| ranks.step(input), vocabulary, memory.blocks)
        .context("a rank died in its first steps")?;
    let info = ReplicaInfo {
        replica: setup.replica,
        epoch: setup.epoch,
        context_tokens_max: memory.context_tokens_max,
        block_tokens: BLOCK_TOKENS,
        blocks: memory.blocks,
        numerics: shard::numerics_fingerprint(&config),
        description: describe(&plan, &setup.model, config.kv),
    };
    Ok(Loaded {
        file,
        ranks,
        info,
        cost,
    })
}

/// Tells the node about the loading, once for each percent.
struct Reporter<'a> {
    setup: &'a ShardSetup,
    total: u64,
    said: Option<u16>,
}

impl Reporter<'_> {
    fn read(&mut self, bytes: u64) {
        let percent = u16::try_from(bytes.min(self.total) * 100 / self.total).unwrap_or(100);
        if self.said != Some(percent) {
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

fn serve(
    replica: Loaded,
    setup: &ShardSetup,
    sender: SyncSender<LoopMessage>,
    mailbox: &Receiver<LoopMessage>,
) -> anyhow::Result<()> {
    let Loaded {
        file,
        mut ranks,
        info,
        cost,
    } = replica;
    let grammars = GrammarDesk::start(file, sender)?;
    let config = EngineConfig {
        block_tokens: info.block_tokens,
        blocks: info.blocks,
        context_tokens_max: info.context_tokens_max,
        cost_prior: cost.unwrap_or(StepCost::PRIOR),
        ..EngineConfig::for_replica(info.replica, info.epoch)
    };
    let engine = Engine::new(config);
    if cost.is_some() {
        // Before anything else, so that whoever hears that it is ready knows how fast.
        send(setup, &FromEngine::Load(engine.load()))?;
    }
    send(setup, &FromEngine::Ready(info))?;
    let hands = Hands {
        compute: |input| ranks.step(input),
        compile: |submit| grammars.compile(submit),
        send: |message: &FromEngine| send(setup, message),
    };
    EngineLoop::new(engine, hands, Clock::start()).run(mailbox)?;
    Ok(())
}

fn send(setup: &ShardSetup, message: &FromEngine) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&wire::frame(Kind::FromEngine, setup.epoch.0, message))?;
    stdout.flush()
}
