//! The threads that compute: rank 0 on the loop's own thread, the others each on one of theirs.

use super::packed::PackedStore;
use super::prepare::{BLOCK_TOKENS, MemoryPlan, ModelFile, PrepareError};
use crate::os;
use kernels::cpu::{Cpu, Level, Team};
use kernels::{KvFormat, Ops};
use shard::{
    ArrivalError, Arrivals, Exchange, LoadError, Lost, ModelConfig, Rank, Share, Shm, Solo, Stage, StepInput,
    StepOutput, WeightSource,
};
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

#[derive(thiserror::Error, Debug)]
pub enum RankError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the operating system gave no compute thread: {0}")]
    Thread(#[from] io::Error),
    #[error("a rank died while it was loading")]
    Died,
}

/// What every rank is made from.
#[derive(Clone)]
pub struct RankPlan {
    pub ranks: usize,
    pub threads: usize,
    pub level: Option<Level>,
    /// The layers that are here.
    pub stage: Stage,
    pub memory: MemoryPlan,
    /// Where packed weights are kept: the beginning of the files' names. `None`: nowhere.
    pub packed: Option<PathBuf>,
}

impl RankPlan {
    /// Threads of one rank; the first ranks get what does not divide.
    fn threads_of(&self, rank: usize) -> usize {
        (self.threads / self.ranks + usize::from(rank < self.threads % self.ranks)).max(1)
    }

    fn packed_of(&self, rank: usize, packing: u32) -> PackedStore {
        match &self.packed {
            Some(prefix) => {
                let mut name = prefix.clone().into_os_string();
                name.push(format!("-{packing}-{rank}of{}", self.ranks));
                if !(self.stage.embeds() && self.stage.samples()) {
                    let layers = self.stage.layers();
                    name.push(format!("-{}to{}", layers.start, layers.end));
                }
                PackedStore::open(name.into(), packing)
            }
            None => PackedStore::Off,
        }
    }
}

/// All ranks of a replica, loaded.
pub enum Ranks {
    Solo(Rank<Cpu, Solo>),
    Team {
        first: Rank<Cpu, Shm>,
        others: Vec<RankThread>,
    },
}

/// A rank other than the first. It ends when its input ends.
pub struct RankThread {
    inputs: SyncSender<Arc<StepInput>>,
}

impl Ranks {
    /// Reads the weights, as they come where they are still coming. `progress` is told how many bytes of weights the first rank
    /// has read, as they are counted once packed, and the same again now and then while it waits for more.
    pub fn load(
        file: &Arc<ModelFile>,
        plan: &RankPlan,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Ranks, RankError> {
        if plan.ranks == 1 {
            return Ok(Ranks::Solo(load_rank(file, plan, Solo, progress)?));
        }
        let mut ring = Shm::ring(plan.ranks).into_iter();
        let exchange = ring.next().expect("a ring has at least one rank");
        let starting: Vec<_> = ring
            .map(|exchange| start_rank(Arc::clone(file), plan.clone(), exchange))
            .collect::<Result<_, _>>()?;
        let first = load_rank(file, plan, exchange, progress)?;
        let others = starting
            .into_iter()
            .map(StartingRank::loaded)
            .collect::<Result<_, _>>()?;
        Ok(Ranks::Team { first, others })
    }

    pub fn step(&mut self, input: StepInput) -> Result<StepOutput, Lost> {
        match self {
            Ranks::Solo(rank) => rank.step(&input),
            Ranks::Team { first, others } => {
                let input = Arc::new(input);
                for other in others {
                    other.inputs.send(Arc::clone(&input)).map_err(|_| Lost)?;
                }
                first.step(&input)
            }
        }
    }
}

fn load_rank<X: Exchange>(
    file: &ModelFile,
    plan: &RankPlan,
    exchange: X,
    progress: &mut dyn FnMut(u64),
) -> Result<Rank<Cpu, X>, RankError> {
    let gguf = file.parse()?;
    let config: ModelConfig = file.config(&gguf)?;
    let threads = plan.threads_of(exchange.rank());
    let team = Team::new(threads, |_| os::priority::below_control_plane())?;
    let load_error = |error: LoadError| RankError::Prepare(file.load_error(error));
    let cpu = Cpu::new(team, plan.level).map_err(|error| {
        load_error(LoadError::Device {
            what: "scratch memory".to_owned(),
            error,
        })
    })?;
    let mut packed = plan.packed_of(exchange.rank(), cpu.packing());
    let (read_bytes, progress) = (Cell::new(0), RefCell::new(progress));
    let mut arrivals = RankArrivals {
        file,
        threads,
        beat: &mut || (progress.borrow_mut())(read_bytes.get()),
    };
    let mut source = WeightSource {
        gguf: &gguf,
        arrivals: &mut arrivals,
        packed: &mut packed,
        progress: &mut |bytes| {
            read_bytes.set(bytes);
            (progress.borrow_mut())(bytes);
        },
    };
    let rank = Rank::load(
        cpu,
        exchange,
        &mut source,
        &config,
        &Share {
            stage: plan.stage.clone(),
            blocks: plan.memory.room.blocks,
            block_tokens: BLOCK_TOKENS,
            pass_rows_max: plan.memory.room.step_tokens_max,
        },
    );
    let rank = rank.map_err(load_error)?;
    file.wait_for_all(arrivals.beat);
    packed.finish();
    Ok(rank)
}

/// The file as one rank waits for it.
struct RankArrivals<'a> {
    file: &'a ModelFile,
    /// That the rank has.
    threads: usize,
    /// Is called now and then while the rank waits.
    beat: &'a mut dyn FnMut(),
}

impl Arrivals for RankArrivals<'_> {
    fn wait_for(&mut self, bytes: &Range<u64>) -> Result<(), ArrivalError> {
        self.file.wait_for(bytes, self.threads, self.beat)
    }
}

struct StartingRank {
    thread: RankThread,
    loaded: Receiver<Result<(), RankError>>,
}

impl StartingRank {
    fn loaded(self) -> Result<RankThread, RankError> {
        self.loaded.recv().map_err(|_| RankError::Died)??;
        Ok(self.thread)
    }
}

fn start_rank(file: Arc<ModelFile>, plan: RankPlan, exchange: Shm) -> Result<StartingRank, RankError> {
    let (inputs, receiver) = sync_channel(1);
    let (loaded_sender, loaded) = sync_channel(1);
    let name = format!("rank-{}", exchange.rank());
    thread::Builder::new().name(name).spawn(move || {
        os::priority::below_control_plane();
        match load_rank(&file, &plan, exchange, &mut |_| ()) {
            Ok(rank) => {
                let _ = loaded_sender.send(Ok(()));
                obey(rank, &receiver);
            }
            Err(error) => {
                let _ = loaded_sender.send(Err(error));
            }
        }
    })?;
    Ok(StartingRank {
        thread: RankThread { inputs },
        loaded,
    })
}

/// Until there is no more to compute, or another rank is gone; dropping the rank tells the others.
fn obey(mut rank: Rank<Cpu, Shm>, inputs: &Receiver<Arc<StepInput>>) {
    while let Ok(input) = inputs.recv() {
        if rank.step(&input).is_err() {
            return;
        }
    }
}

/// For messages and the plan: what computes.
pub fn describe(plan: &RankPlan, model: &str, kv: KvFormat) -> String {
    let level = Level::choose(plan.level);
    let memory = &plan.memory;
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let layers = plan.stage.layers();
    let part = match plan.stage.embeds() && plan.stage.samples() {
        true => String::new(),
        false => format!(" layers {} to {}", layers.start, layers.end - 1),
    };
    format!(
        "{model}{part}: cpu {level}, {} rank(s), {} thread(s), weights {} MiB, KV cache {} MiB in {} blocks of {}",
        plan.ranks,
        plan.threads,
        mebibytes(memory.weight_bytes),
        mebibytes(memory.cache_bytes),
        memory.room.blocks,
        kv,
    )
}
