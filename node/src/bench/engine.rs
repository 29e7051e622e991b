//! `cluster bench engine`: prefill and decode through the ranks, without scheduler and HTTP.

use super::summary::Spread;
use crate::os;
use crate::shard_host::exercise::{Exercise, ExerciseError, Shape};
use crate::shard_host::prepare::{MemoryPlan, ModelFile};
use crate::shard_host::ranks::{RankPlan, Ranks};
use anyhow::{Context, bail};
use clap::Args;
use coordinator::placer::layout::Room;
use kernels::KvFormat;
use kernels::cpu::Level;
use serde::Serialize;
use shard::{Lost, PASS_ROWS_MAX, Stage};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What is measured: every prompt length with every output length and every batch.
#[derive(Args, Clone, Debug)]
pub struct Grid {
    /// Prompt lengths, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "512", value_parser = count())]
    pub prompt_tokens: Vec<u32>,
    /// Output lengths, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "16", value_parser = count())]
    pub output_tokens: Vec<u32>,
    /// Sequences side by side, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,8,32", value_parser = count())]
    pub batch: Vec<u32>,
    /// 0 is greedy; anything else samples from the likeliest 95 %
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    pub temperature: f32,
    /// How often each is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count())]
    pub rounds: u32,
}

fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1_000_000)
}

/// What computes.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub ranks: usize,
    pub threads: usize,
    pub level: Option<Level>,
    pub kv: KvFormat,
}

/// Every figure is positions, or tokens, a second.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Report {
    pub model: String,
    pub level: String,
    pub threads: usize,
    pub ranks: usize,
    pub kv_cache: String,
    pub load_secs: f64,
    pub rows: Vec<Row>,
}

#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Row {
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    pub batch: u32,
    /// All prompts computed in one step.
    pub prefill_tokens_per_sec: Spread,
    /// All sequences together. `null` where there is only the token that the prompt gives.
    pub decode_tokens_per_sec: Option<Spread>,
    pub decode_step_ms: Option<Spread>,
}

impl Grid {
    fn shapes(&self) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for prompt_tokens in &self.prompt_tokens {
            for output_tokens in &self.output_tokens {
                shapes.extend(self.batch.iter().map(|sequences| Shape {
                    sequences: *sequences,
                    prompt_tokens: *prompt_tokens,
                    output_tokens: *output_tokens,
                    temperature: self.temperature,
                }));
            }
        }
        shapes
    }
}

/// Loads the model and measures. `told` hears each row when it is there.
pub fn run(path: &Path, machine: Machine, grid: &Grid, told: &mut dyn FnMut(&Row)) -> anyhow::Result<Report> {
    let shapes = grid.shapes();
    let began = std::time::Instant::now();
    let file = Arc::new(ModelFile::map(path, machine.kv)?);
    let Planned {
        stage,
        memory,
        vocabulary,
    } = plan(&file, machine, &shapes)?;
    let plan = RankPlan {
        ranks: machine.ranks,
        threads: machine.threads,
        level: machine.level,
        stage,
        memory,
        packed: None,
    };
    let room = plan.memory.room;
    let mut ranks = Ranks::load(&file, &plan, &mut |_| ())?;
    let load_secs = began.elapsed().as_secs_f64();
    let mut exercise = Exercise::new(|input| ranks.step(input), vocabulary, room.step_tokens_max);
    let mut rows = Vec::new();
    for shape in shapes {
        let row = measure(&mut exercise, shape, grid.rounds).context("a rank died")?;
        told(&row);
        rows.push(row);
    }
    Ok(Report {
        model: path.display().to_string(),
        level: Level::choose(machine.level).to_string(),
        threads: machine.threads,
        ranks: machine.ranks,
        kv_cache: machine.kv.to_string(),
        load_secs,
        rows,
    })
}

struct Planned {
    stage: Stage,
    memory: MemoryPlan,
    vocabulary: u32,
}

/// The whole model, and room for the largest shape.
fn plan(file: &ModelFile, machine: Machine, shapes: &[Shape]) -> anyhow::Result<Planned> {
    let gguf = file.parse()?;
    let config = file.config(&gguf)?;
    let longest = shapes
        .iter()
        .map(|shape| shape.prompt_tokens + shape.output_tokens)
        .max();
    let (longest, context) = (longest.unwrap_or(0), config.context_tokens_max);
    if longest > context {
        bail!("prompt and output take {longest} tokens, but the model's context is {context}");
    }
    let blocks = shapes.iter().map(Shape::blocks).max().unwrap_or(0);
    let stage = config.whole();
    let need = file.memory(&gguf, &config, &stage, machine.ranks)?;
    let room = Room {
        blocks: blocks.max(1),
        step_tokens_max: PASS_ROWS_MAX,
    };
    let memory = MemoryPlan::with_room(&need, room, context, os::memory::available_bytes())?;
    Ok(Planned {
        stage,
        memory,
        vocabulary: config.vocabulary as u32,
    })
}

/// One round more than asked for; the first warms caches and page tables and is dropped.
fn measure<Compute>(exercise: &mut Exercise<Compute>, shape: Shape, rounds: u32) -> Result<Row, ExerciseError>
where
    Compute: FnMut(shard::StepInput) -> Result<shard::StepOutput, Lost>,
{
    round(exercise, shape)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        times.push(round(exercise, shape)?);
    }
    let steps = f64::from(shape.output_tokens - 1);
    let spread = |figure: &dyn Fn(&Round) -> f64| Spread::of(times.iter().map(figure).collect());
    let decoded = |figure: &dyn Fn(&Round) -> f64| (steps > 0.0).then(|| spread(figure));
    let prompts = f64::from(shape.sequences) * f64::from(shape.prompt_tokens);
    Ok(Row {
        prompt_tokens: shape.prompt_tokens,
        output_tokens: shape.output_tokens,
        batch: shape.sequences,
        prefill_tokens_per_sec: spread(&|round| prompts / round.prefill.as_secs_f64()),
        decode_tokens_per_sec: decoded(&|round| {
            f64::from(shape.sequences) * steps / round.decode.as_secs_f64()
        }),
        decode_step_ms: decoded(&|round| round.decode.as_secs_f64() * 1e3 / steps),
    })
}

struct Round {
    prefill: Duration,
    decode: Duration,
}

/// The prompts give the first token of each sequence, so decoding is one step shorter than the output.
fn round<Compute>(exercise: &mut Exercise<Compute>, shape: Shape) -> Result<Round, ExerciseError>
where
    Compute: FnMut(shard::StepInput) -> Result<shard::StepOutput, Lost>,
{
    let mut batch = exercise.admit(shape);
    let prefill = exercise.advance(&mut batch, shape.prompt_tokens)?;
    let mut decode = Duration::ZERO;
    for _ in 1..shape.output_tokens {
        decode += exercise.advance(&mut batch, 1)?;
    }
    exercise.forget(batch);
    Ok(Round { prefill, decode })
}

impl Report {
    /// What the rows stand below.
    pub const HEAD: &str = "prompt output  batch    prefill tok/s     decode tok/s     decode ms a step";
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:>6} {:>6} {:>6} {:>16}",
            self.prompt_tokens, self.output_tokens, self.batch, self.prefill_tokens_per_sec
        )?;
        match (&self.decode_tokens_per_sec, &self.decode_step_ms) {
            (Some(rate), Some(step)) => write!(out, " {rate:>16} {step:>20}"),
            (_, _) => write!(out, " {:>16} {:>20}", "-", "-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use shard::{StepInput, StepOutput};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        grid: Grid,
    }

    #[test]
    fn every_combination_is_a_shape() {
        let line = [
            "bench",
            "--prompt-tokens",
            "16,32",
            "--batch",
            "1,2",
            "--output-tokens",
            "4",
        ];
        let shapes = Line::parse_from(line).grid.shapes();
        let sizes: Vec<_> = shapes
            .iter()
            .map(|shape| (shape.prompt_tokens, shape.sequences))
            .collect();
        assert_eq!(sizes, [(16, 1), (16, 2), (32, 1), (32, 2)]);
        assert!(Line::try_parse_from(["bench", "--batch", "1,0"]).is_err());
    }

    #[test]
    fn an_output_of_one_token_has_no_decoding() {
        let compute = |_: StepInput| Ok(StepOutput::default());
        let shape = Shape {
            sequences: 1,
            prompt_tokens: 3,
            output_tokens: 1,
            temperature: 0.0,
        };
        let row = measure(&mut Exercise::new(compute, 10, PASS_ROWS_MAX), shape, 1).unwrap();
        assert_eq!(row.decode_tokens_per_sec, None);
    }
}
