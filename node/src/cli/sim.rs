//! `cluster sim`.

use super::tell::tell;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use sim::{PromptReport, Report, Scenario, TenantReport};
use std::path::PathBuf;

/// Play scenarios: the code that decides, on a virtual clock
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  cluster sim run scenario.toml --seed 7")]
pub struct Sim {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Run(Run),
}

const EXAMPLES: &str = "\
Examples:
  cluster sim run scenario.toml
  cluster sim run scenario.toml --seed 7 --json report.json";

/// Play one scenario and say how it went; fails when something happened that must never happen
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
struct Run {
    /// A scenario in TOML
    scenario: PathBuf,
    /// The same seed gives the same report, byte for byte
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the report here as JSON; - is stdout, and then nothing else is
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

impl Sim {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Run(run) => run.run(),
        }
    }
}

impl Run {
    fn run(self) -> anyhow::Result<()> {
        let name = self.scenario.display();
        let text = std::fs::read_to_string(&self.scenario).with_context(|| format!("scenario {name}"))?;
        let read = |trace: &str| {
            let path = self.scenario.with_file_name(trace);
            std::fs::read_to_string(&path).with_context(|| format!("trace {}", path.display()))
        };
        let scenario = Scenario::with_traces(&text, read).with_context(|| format!("scenario {name}"))?;
        let report = sim::run(&scenario, self.seed);
        match &self.json {
            Some(path) if path.as_os_str() == "-" => tell!("{}", report.to_json()),
            Some(path) => {
                std::fs::write(path, report.to_json()).with_context(|| format!("{}", path.display()))?;
                print(&report);
            }
            None => print(&report),
        }
        match report.violations.first() {
            Some(first) => bail!("{} violations, the first: {first}", report.violations.len()),
            None => Ok(()),
        }
    }
}

fn print(report: &Report) {
    tell!(
        "seed {}, {:.1} s of virtual time",
        report.seed,
        report.elapsed_secs
    );
    report.tenants.iter().chain([&report.all]).for_each(print_tenant);
    for (number, replica) in report.replicas.iter().enumerate() {
        let (busy, bubble) = (replica.busy * 100.0, replica.bubble * 100.0);
        tell!(
            "replica {number}: {} steps, {busy:.0}% busy, {bubble:.0}% bubble, {} preemptions",
            replica.steps,
            replica.preemptions
        );
    }
    let PromptReport {
        computed_tokens,
        least_tokens,
    } = report.prompts;
    tell!(
        "prompts: {computed_tokens} tokens computed; one cache that never forgets would have left {least_tokens}: {:.2} times as many",
        computed_tokens as f64 / least_tokens.max(1) as f64
    );
}

fn print_tenant(tenant: &TenantReport) {
    tell!(
        "{}: {} of {} streams completed, {} refused, {:.1} tok/s, TTFT p50 {:.0} ms p95 {:.0} ms, \
         between tokens p50 {:.1} ms p95 {:.1} ms",
        tenant.name,
        tenant.completed,
        tenant.streams,
        tenant.refused,
        tenant.output_tokens_per_sec,
        tenant.ttft_ms.p50,
        tenant.ttft_ms.p95,
        tenant.tpot_ms.p50,
        tenant.tpot_ms.p95,
    );
}
