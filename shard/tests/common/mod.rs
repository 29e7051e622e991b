//! A replica without an engine: the test says what each step computes.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use kernels::{KvFormat, Ops, Reference};
use proto::engine::TokenScore;
use proto::request::{PrefixUse, Sampling, ServiceClass, Submit, Ticket};
use proto::step::{Slice, SliceOutput, StepPlan};
use proto::{
    AdapterId, Attempt, BlockHash, BlockId, GroupId, RequestId, SequenceId, Span, StreamId, TenantId,
};
use shard::{
    Arrivals, Gguf, Lost, ModelConfig, NoPackedCache, NothingToCome, PASS_ROWS_MAX, PackedCache, PlanBounds,
    Rank, SequenceTable, Share, Shm, Stage, StageTable, StepInput, StepOutput, WeightSource,
};
use std::collections::BTreeMap;

pub const BLOCK_TOKENS: u32 = 16;
const BLOCKS: u32 = 256;

/// What a client would have seen.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Stream {
    pub tokens: Vec<u32>,
    pub scores: Vec<TokenScore>,
    pub prompt_scores: Vec<TokenScore>,
}

#[derive(Default)]
struct Progress {
    known: u32,
    computed: u32,
    blocks: Vec<BlockId>,
    stream: Stream,
}

pub struct Replica<O: Ops = Reference> {
    /// All but the last stage, with what they remember.
    before: Vec<(StageTable, Vec<Rank<O, Shm>>)>,
    ranks: Vec<Rank<O, Shm>>,
    table: SequenceTable,
    sequences: BTreeMap<SequenceId, Progress>,
    next_block: u32,
    plan: StepPlan,
}

/// Into how many parts a model is cut each way.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cuts {
    pub ranks: usize,
    pub stages: usize,
}

impl Cuts {
    fn of(self, layers: usize) -> Vec<Stage> {
        let bound = |stage: usize| layers * stage / self.stages;
        (0..self.stages)
            .map(|stage| Stage::new(bound(stage)..bound(stage + 1), layers).unwrap())
            .collect()
    }

    /// Cut models compute in passes that are shorter than prompts.
    fn pass_rows_max(self) -> u32 {
        match self.stages {
            1 => PASS_ROWS_MAX,
            _ => 32,
        }
    }
}

pub fn greedy() -> Sampling {
    Sampling {
        temperature: 0.0,
        logprobs: Some(2),
        ..Sampling::default()
    }
}

pub fn prompt(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32)
        .map(|n| (n * 7919 + seed * 104_729 + n * n * 31) % 515)
        .collect()
}

impl Replica {
    pub fn new(file: &[u8], ranks: usize) -> Self {
        Replica::on(|| Reference, file, ranks)
    }
}

impl<O: Ops> Replica<O> {
    pub fn on(device: impl Fn() -> O, file: &[u8], ranks: usize) -> Self {
        Replica::keeping(&mut NoPackedCache, device, file, ranks)
    }

    /// With keys and values in this format.
    pub fn caching(kv: KvFormat, device: impl Fn() -> O, file: &[u8], ranks: usize) -> Self {
        let cuts = Cuts { ranks, stages: 1 };
        Replica::load(kv, &mut NoPackedCache, &mut NothingToCome, device, file, cuts)
    }

    /// Cut into stages of whole layers, each with that many ranks.
    pub fn piped(device: impl Fn() -> O, file: &[u8], cuts: Cuts) -> Self {
        Replica::coming(&mut NothingToCome, device, file, cuts)
    }

    /// Of a file that is still coming.
    pub fn coming(arrivals: &mut dyn Arrivals, device: impl Fn() -> O, file: &[u8], cuts: Cuts) -> Self {
        let kv = KvFormat::default();
        Replica::load(kv, &mut NoPackedCache, arrivals, device, file, cuts)
    }

    /// With weights that were packed before, as far as `packed` has them.
    pub fn keeping(packed: &mut dyn PackedCache, device: impl Fn() -> O, file: &[u8], ranks: usize) -> Self {
        let cuts = Cuts { ranks, stages: 1 };
        let kv = KvFormat::default();
        Replica::load(kv, packed, &mut NothingToCome, device, file, cuts)
    }

    fn load(
        kv: KvFormat,
        packed: &mut dyn PackedCache,
        arrivals: &mut dyn Arrivals,
        device: impl Fn() -> O,
        file: &[u8],
        cuts: Cuts,
    ) -> Self {
        let gguf = Gguf::parse(file).unwrap();
        let config = ModelConfig {
            kv,
            ..ModelConfig::from_gguf(&gguf).unwrap()
        };
        let mut source = WeightSource {
            gguf: &gguf,
            arrivals,
            packed,
            progress: &mut |_| {},
        };
        let mut load = |stage: &Stage| {
            let share = Share {
                stage: stage.clone(),
                blocks: BLOCKS,
                block_tokens: BLOCK_TOKENS,
                pass_rows_max: cuts.pass_rows_max(),
            };
            let ring = Shm::ring(cuts.ranks).into_iter();
            ring.map(|exchange| Rank::load(device(), exchange, &mut source, &config, &share).unwrap())
                .collect()
        };
        let mut stages = cuts.of(config.layers);
        let last = stages.pop().unwrap();
        let before = stages.into_iter().map(|stage| {
            let ranks = load(&stage);
            let bounds = PlanBounds {
                block_tokens: BLOCK_TOKENS,
                blocks: BLOCKS,
                vocabulary: config.vocabulary as u32,
                pass_rows_max: cuts.pass_rows_max(),
            };
            (StageTable::new(stage, bounds), ranks)
        });
        Replica {
            before: before.collect(),
            ranks: load(&last),
            table: SequenceTable::new(BLOCK_TOKENS, cuts.pass_rows_max()),
            sequences: BTreeMap::new(),
            next_block: 0,
            plan: StepPlan::default(),
        }
    }

    pub fn admit(&mut self, prompt: &[u32], sampling: &Sampling) -> SequenceId {
        let sequence = SequenceId(self.sequences.len() as u64);
        self.table.admit(sequence, submit(prompt, sampling), None);
        let progress = Progress {
            known: prompt.len() as u32,
            ..Progress::default()
        };
        self.sequences.insert(sequence, progress);
        sequence
    }

    /// Up to the last known token, which is where the next one is sampled.
    pub fn prefill(&mut self, sequence: SequenceId, chunk: usize) {
        let end = self.sequences[&sequence].known;
        while self.sequences[&sequence].computed < end {
            self.compute(sequence, chunk as u32);
        }
    }

    pub fn prefill_together(&mut self, sequences: &[SequenceId]) {
        sequences
            .iter()
            .for_each(|sequence| self.slice(*sequence, u32::MAX));
        self.step().unwrap();
    }

    pub fn decode(&mut self, sequences: &[SequenceId], steps: usize) {
        for _ in 0..steps {
            self.prefill_together(sequences);
        }
    }

    pub fn compute(&mut self, sequence: SequenceId, count: u32) {
        self.try_compute(sequence, count).unwrap();
    }

    pub fn try_compute(&mut self, sequence: SequenceId, count: u32) -> Result<(), Lost> {
        self.slice(sequence, count);
        self.step()
    }

    pub fn preempt(&mut self, sequence: SequenceId) {
        self.plan.reset.push(sequence);
        let progress = self.sequences.get_mut(&sequence).unwrap();
        progress.blocks.clear();
        progress.computed = 0;
    }

    pub fn zero_pages_of(&mut self, sequence: SequenceId) {
        self.plan.zero.extend(&self.sequences[&sequence].blocks);
    }

    pub fn end_rank(&mut self, rank: usize) {
        self.ranks.remove(rank);
    }

    pub fn stream(&self, sequence: SequenceId) -> Stream {
        self.sequences[&sequence].stream.clone()
    }

    fn slice(&mut self, sequence: SequenceId, count: u32) {
        let progress = self.sequences.get_mut(&sequence).unwrap();
        let start = progress.computed;
        let count = count.min(progress.known - start);
        progress.computed += count;
        let needed = progress.computed.div_ceil(BLOCK_TOKENS) as usize - progress.blocks.len();
        let new: Vec<BlockId> = (0..needed as u32).map(|n| BlockId(self.next_block + n)).collect();
        self.next_block += needed as u32;
        progress.blocks.extend(&new);
        let last = progress.computed == progress.known;
        self.plan.slices.push(Slice {
            sequence,
            adapter: AdapterId(0),
            start,
            count,
            new_blocks: new.into_iter().map(|block| (GroupId(0), block)).collect(),
            output: if last {
                SliceOutput::Sample
            } else {
                SliceOutput::Nothing
            },
        });
    }

    fn step(&mut self) -> Result<(), Lost> {
        let plan = std::mem::take(&mut self.plan);
        let mut input = self.table.input(&plan);
        for (table, ranks) in &mut self.before {
            let tokens = match input.residual.is_empty() {
                true => input.tokens(),
                false => Vec::new(),
            };
            let mut own = table.input(&plan, &tokens).unwrap();
            own.residual = std::mem::take(&mut input.residual);
            input.residual = run(ranks, &own)?.residual;
        }
        let output = run(&mut self.ranks, &input)?;
        self.table.record(&plan, &output, Span::ZERO);
        for (sequence, token) in output.sampled {
            let progress = self.sequences.get_mut(&sequence).unwrap();
            progress.known += 1;
            progress.stream.tokens.push(token.id);
            progress.stream.scores.extend(token.score);
        }
        for (sequence, scores) in output.prompt_scores {
            self.sequences
                .get_mut(&sequence)
                .unwrap()
                .stream
                .prompt_scores
                .extend(scores);
        }
        Ok(())
    }
}

/// Every rank on a thread of its own. The output of rank 0, unless any was lost.
fn run<O: Ops>(ranks: &mut [Rank<O, Shm>], input: &StepInput) -> Result<StepOutput, Lost> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .iter_mut()
            .map(|rank| scope.spawn(move || rank.step(input)))
            .collect();
        let mut outputs = threads.into_iter().map(|thread| thread.join().unwrap());
        let first = outputs.next().unwrap();
        outputs.collect::<Result<Vec<_>, _>>()?;
        first
    })
}

pub fn submit(prompt: &[u32], sampling: &Sampling) -> Submit {
    let root = BlockHash(1);
    Submit {
        ticket: Ticket {
            stream: StreamId {
                request: RequestId(1),
                choice: 0,
            },
            attempt: Attempt(0),
            tenant: TenantId(0),
            class: ServiceClass::Default,
            adapter: AdapterId(0),
            prompt_tokens: prompt.len() as u32,
            resumed_tokens: 0,
            block_hashes: root.chain(prompt, BLOCK_TOKENS as usize),
            max_new_tokens: 100,
            prefix: PrefixUse::Reuse,
            deadline: None,
        },
        prompt: prompt.to_vec(),
        hash_root: root,
        sampling: sampling.clone(),
    }
}
