//! Prefill and decode of one rank without engine and HTTP: `engine_bench MODEL.gguf [THREADS] [ROUNDS]`.
//!
//! Prints tokens per second: minimum, median, maximum over the rounds.

use kernels::cpu::{Cpu, Team};
use proto::request::{PrefixUse, Sampling, ServiceClass, Submit, Ticket};
use proto::step::{Slice, SliceOutput, StepPlan};
use proto::{
    AdapterId, Attempt, BlockHash, BlockId, GroupId, RequestId, SequenceId, Span, StreamId, TenantId,
};
use shard::{Gguf, ModelConfig, Rank, SequenceTable, Solo};
use std::time::Instant;

const BLOCK_TOKENS: u32 = 16;
const PROMPT_TOKENS: u32 = 512;
const DECODE_STEPS: u32 = 16;
const SEQUENCES_MAX: u32 = 32;
const BLOCKS_EACH: u32 = (PROMPT_TOKENS + 3 * DECODE_STEPS) / BLOCK_TOKENS;

struct Bench {
    rank: Rank<Cpu, Solo>,
    table: SequenceTable,
    vocabulary: u32,
    next_sequence: u64,
    /// Seconds outside of `Rank::step`.
    table_secs: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let path = arguments
        .get(1)
        .expect("usage: engine_bench MODEL.gguf [THREADS] [ROUNDS]");
    let number = |at: usize, default: usize| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (threads, rounds) = (number(2, 2), number(3, 5));
    let bytes = std::fs::read(path).unwrap();
    let mut bench = Bench::load(&bytes, threads);
    report(
        "prefill 512",
        (0..rounds).map(|_| bench.prefill(PROMPT_TOKENS)).collect(),
    );
    for batch in [1, 8, 32] {
        for (name, temperature) in [("greedy", 0.0), ("sampled", 0.8)] {
            let rates = (0..rounds).map(|_| bench.decode(batch, temperature)).collect();
            report(&format!("decode {batch} {name}"), rates);
        }
    }
}

fn report(name: &str, mut rates: Vec<f64>) {
    rates.sort_by(f64::total_cmp);
    let (min, median, max) = (rates[0], rates[rates.len() / 2], rates[rates.len() - 1]);
    println!("{name:>18}: {min:8.1} {median:8.1} {max:8.1} tok/s");
}

impl Bench {
    fn load(bytes: &[u8], threads: usize) -> Self {
        let gguf = Gguf::parse(bytes).unwrap();
        let config = ModelConfig::from_gguf(&gguf).unwrap();
        let cpu = Cpu::new(Team::new(threads, |_| {}).unwrap(), None).unwrap();
        println!("level {}, {threads} threads", cpu.level());
        let began = Instant::now();
        let blocks = SEQUENCES_MAX * BLOCKS_EACH;
        let rank = Rank::load(cpu, Solo, &gguf, &config, blocks, BLOCK_TOKENS, &mut |_| {}).unwrap();
        println!("loaded in {:.2} s", began.elapsed().as_secs_f64());
        Bench {
            rank,
            table: SequenceTable::new(BLOCK_TOKENS),
            vocabulary: config.vocabulary as u32,
            next_sequence: 0,
            table_secs: 0.0,
        }
    }

    fn prefill(&mut self, tokens: u32) -> f64 {
        let sequences = self.admit(1, tokens, 0.0);
        let secs = self.step(&sequences, 0, tokens);
        self.forget(sequences);
        f64::from(tokens) / secs
    }

    /// Each after a prompt of 64 tokens.
    fn decode(&mut self, batch: u32, temperature: f32) -> f64 {
        let sequences = self.admit(batch, 64, temperature);
        self.step(&sequences, 0, 64);
        self.table_secs = 0.0;
        let secs: f64 = (0..DECODE_STEPS)
            .map(|step| self.step(&sequences, 64 + step, 1))
            .sum();
        let outside = self.table_secs / f64::from(DECODE_STEPS) * 1e6;
        println!("{:>18}  {outside:.1} µs a step in the sequence table", "");
        self.forget(sequences);
        f64::from(batch * DECODE_STEPS) / secs
    }

    fn admit(&mut self, count: u32, tokens: u32, temperature: f32) -> Vec<SequenceId> {
        let admit = |_| {
            let sequence = SequenceId(self.next_sequence);
            self.next_sequence += 1;
            let prompt: Vec<u32> = (0..tokens)
                .map(|n| (n * 7919 + sequence.0 as u32 * 31) % self.vocabulary)
                .collect();
            self.table.admit(sequence, submit(prompt, temperature));
            sequence
        };
        (0..count).map(admit).collect()
    }

    fn forget(&mut self, sequences: Vec<SequenceId>) {
        self.table.input(&StepPlan {
            forget: sequences,
            ..StepPlan::default()
        });
    }

    /// Seconds for `count` positions from `start` of each sequence.
    fn step(&mut self, sequences: &[SequenceId], start: u32, count: u32) -> f64 {
        let slices = (0..)
            .zip(sequences)
            .map(|(slot, sequence)| slice(slot, *sequence, start, count));
        let plan = StepPlan {
            slices: slices.collect(),
            ..StepPlan::default()
        };
        let began = Instant::now();
        let input = self.table.input(&plan);
        let prepared = began.elapsed();
        let output = self.rank.step(&input).unwrap();
        let computed = began.elapsed();
        self.table.record(&plan, &output, Span::ZERO);
        let whole = began.elapsed();
        self.table_secs += (whole - computed + prepared).as_secs_f64();
        whole.as_secs_f64()
    }
}

fn slice(slot: u32, sequence: SequenceId, start: u32, count: u32) -> Slice {
    let blocks = start.div_ceil(BLOCK_TOKENS)..(start + count).div_ceil(BLOCK_TOKENS);
    let block = |block: u32| (GroupId(0), BlockId(slot * BLOCKS_EACH + block));
    Slice {
        sequence,
        adapter: AdapterId(0),
        start,
        count,
        new_blocks: blocks.map(block).collect(),
        output: SliceOutput::Sample,
    }
}

fn submit(prompt: Vec<u32>, temperature: f32) -> Submit {
    let top_p = if temperature == 0.0 { 1.0 } else { 0.95 };
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
            block_hashes: BlockHash(0).chain(&prompt, BLOCK_TOKENS as usize),
            max_new_tokens: 1000,
            prefix: PrefixUse::Recompute,
            deadline: None,
        },
        prompt,
        hash_root: BlockHash(0),
        sampling: Sampling {
            temperature,
            top_p,
            ..Sampling::default()
        },
    }
}
