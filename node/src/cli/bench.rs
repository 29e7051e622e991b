//! `cluster bench`.

use super::server::{Server, model_names};
use super::tell::tell;
use crate::bench::engine::{self, Grid, Machine, Report, Row};
use crate::bench::machine;
use crate::bench::schemas::{self, Walks};
use crate::bench::serve::{self, Load};
use crate::config::high;
use crate::config::low::KvCache;
use crate::store::spec::NamedSpec;
use crate::store::{Check, catalogue};
use crate::up::open_store;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Measure a server, or what computes in it
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster bench serve --concurrency 32 --requests 200
  cluster bench engine --prompt-tokens 128,2048 --batch 1,16")]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Serve(BenchServe),
    Engine(BenchEngine),
    Machine(BenchMachine),
    Schemas(BenchSchemas),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  cluster bench serve
  cluster bench serve --concurrency 32 --requests 200 --prompt-tokens 512 --output-tokens 128
  cluster bench serve --rate 4 --concurrency 64 --json
  cluster bench serve --url http://127.0.0.1:8080 --model other --key \"$KEY\"";

/// Put load on any OpenAI-compatible server and say how long its tokens took
///
/// Prompts are lists of random token ids, so that their length is exact and no prefix cache helps; greedy, and
/// `ignore_eos` where the server knows it.
#[derive(Args, Debug)]
#[command(after_help = SERVE_EXAMPLES)]
struct BenchServe {
    #[command(flatten)]
    server: Server,
    /// The model's served name [default: the first that the server lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    #[command(flatten)]
    load: Load,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Serve(serve) => super::runtime()?.block_on(serve.run()),
            What::Engine(engine) => engine.run(),
            What::Machine(machine) => machine.run(),
            What::Schemas(schemas) => schemas.run(),
        }
    }
}

impl BenchServe {
    async fn run(self) -> anyhow::Result<()> {
        let endpoint = self.server.endpoint()?;
        let model = match self.model {
            Some(model) => model,
            None => model_names(&endpoint).await?.swap_remove(0),
        };
        let summary = serve::run(self.load, endpoint, model).await?;
        match self.json {
            true => tell!("{}", serde_json::to_string(&summary)?),
            false => tell!("{}", summary.to_string().trim_end()),
        }
        if summary.failed > 0 {
            bail!(
                "{} of {} requests failed",
                summary.failed,
                summary.succeeded + summary.failed
            );
        }
        Ok(())
    }
}

const ENGINE_EXAMPLES: &str = "\
Examples:
  cluster bench engine
  cluster bench engine --model ./model.gguf --prompt-tokens 128,2048 --output-tokens 64 --batch 1,16
  cluster bench engine --threads 4 --tp 2 --temperature 0.8 --json";

/// Measure prefill and decode without scheduler and HTTP, in this process
#[derive(Args, Debug)]
#[command(after_help = ENGINE_EXAMPLES)]
struct BenchEngine {
    /// As for `cluster up`
    #[arg(long, value_name = "SPEC", default_value = catalogue::DEFAULT)]
    model: String,
    #[command(flatten)]
    grid: Grid,
    /// Compute threads [default: the CPUs this process may use]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Ranks that share the model
    #[arg(long, value_name = "N", default_value_t = 1)]
    tp: usize,
    /// As for `cluster up`
    #[arg(long, value_enum, default_value_t)]
    kv_cache: KvCache,
    /// Best instruction set to use, for comparisons; never above what the CPU has [default: the best]
    #[arg(long, value_name = "LEVEL")]
    cpu_level: Option<String>,
    /// Where models are kept [default: ~/.cache/cluster/store]
    #[arg(long, value_name = "DIR", env = "CLUSTER_STORE")]
    store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl BenchEngine {
    fn run(self) -> anyhow::Result<()> {
        let machine = self.machine()?;
        let named: NamedSpec = self.model.parse()?;
        let store = open_store(&super::store_folder(self.store)?)?;
        let (stored, _in_use) = store.take(&named.spec, Check::Length)?;
        if self.json {
            let report = engine::run(&stored.path, machine, &self.grid, &mut |_| ())?;
            tell!("{}", serde_json::to_string(&report)?);
            return Ok(());
        }
        tell!("{}", Report::HEAD);
        let report = engine::run(&stored.path, machine, &self.grid, &mut |row: &Row| tell!("{row}"))?;
        tell!(
            "{}, {} threads, {} rank(s), loaded in {:.2} s; medians of {} rounds",
            report.level,
            report.threads,
            report.ranks,
            report.load_secs,
            self.grid.rounds
        );
        Ok(())
    }

    fn machine(&self) -> anyhow::Result<Machine> {
        let threads = self
            .threads
            .unwrap_or_else(|| high::Machine::here().cpus.max(self.tp));
        if self.tp == 0 || threads < self.tp {
            bail!("--tp needs to be 1 or more, and at most --threads ({threads})");
        }
        Ok(Machine {
            ranks: self.tp,
            threads,
            kv: self.kv_cache.format(),
            level: self.cpu_level.as_deref().map(str::parse).transpose()?,
        })
    }
}

const MACHINE_EXAMPLES: &str = "\
Examples:
  cluster bench machine
  cluster bench machine --threads 1 --json";

/// Measure how fast this machine multiplies each format of weights, and attends: what models are placed by
#[derive(Args, Debug)]
#[command(after_help = MACHINE_EXAMPLES)]
struct BenchMachine {
    /// Compute threads [default: the CPUs this process may use]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Best instruction set to use, for comparisons; never above what the CPU has [default: the best]
    #[arg(long, value_name = "LEVEL")]
    cpu_level: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl BenchMachine {
    fn run(self) -> anyhow::Result<()> {
        let threads = self.threads.unwrap_or_else(|| high::Machine::here().cpus);
        if threads == 0 {
            bail!("--threads needs to be 1 or more");
        }
        let level = self.cpu_level.as_deref().map(str::parse).transpose()?;
        let rates = machine::measure(threads, level)?;
        match self.json {
            true => tell!("{}", serde_json::to_string(&rates)?),
            false => tell!("{rates}"),
        }
        Ok(())
    }
}

const SCHEMAS_EXAMPLES: &str = "\
Each line of FILE is a JSON object: `name`, `schema`, and maybe `texts`, a list of strings that are followed as well.

Examples:
  cluster bench schemas schemas.jsonl
  cluster bench schemas schemas.jsonl --walks 20 --seed 7 --json";

/// Compile JSON schemas, and walk through them at random: what they cost, and what they let through
#[derive(Args, Debug)]
#[command(after_help = SCHEMAS_EXAMPLES)]
struct BenchSchemas {
    /// JSON lines
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// As for `cluster up`; only its tokens matter
    #[arg(long, value_name = "SPEC", default_value = catalogue::DEFAULT)]
    model: String,
    #[command(flatten)]
    walks: Walks,
    /// Where models are kept [default: ~/.cache/cluster/store]
    #[arg(long, value_name = "DIR", env = "CLUSTER_STORE")]
    store: Option<PathBuf>,
    /// Print a line of JSON for each schema, outputs included
    #[arg(long)]
    json: bool,
}

impl BenchSchemas {
    fn run(self) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(&self.file).with_context(|| self.file.display().to_string())?;
        let cases = schemas::read(&text).with_context(|| self.file.display().to_string())?;
        let named: NamedSpec = self.model.parse()?;
        let store = open_store(&super::store_folder(self.store)?)?;
        let (stored, _in_use) = store.take(&named.spec, Check::Length)?;
        if self.json {
            return schemas::run(&stored.path, &cases, &self.walks, &mut |report| {
                tell!("{}", serde_json::to_string(&report).expect("a report is JSON"));
            });
        }
        tell!("{}", schemas::Report::HEAD);
        schemas::run(&stored.path, &cases, &self.walks, &mut |report| tell!("{report}"))
    }
}
