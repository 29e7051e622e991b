//! The command line. Exit codes: 0 done, 1 failed with one clear line on stderr, 2 wrong usage.

mod bench;
mod pull;
mod shard_host;
mod sim;
mod status;
mod up;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// A distributed server for large language models: one binary, an OpenAI-compatible API.
#[derive(Parser, Debug)]
#[command(
    name = "cluster",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(up::Up),
    Pull(pull::Pull),
    Status(status::Status),
    Bench(bench::Bench),
    Sim(sim::Sim),
    #[command(hide = true)]
    ShardHost(shard_host::ShardHost),
}

/// The whole program.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli.command, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the causes had to say.
            let line = format!("{error:#}").replace('\n', " ");
            let _ = writeln!(std::io::stderr(), "error: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, matches: &ArgMatches) -> anyhow::Result<()> {
    match command {
        Command::Up(up) => up.run(matches.subcommand_matches("up").expect("clap chose this command")),
        Command::Pull(pull) => pull.run(),
        Command::Status(status) => status.run(),
        Command::Bench(bench) => bench.run(),
        Command::Sim(sim) => sim.run(),
        Command::ShardHost(host) => host.run(),
    }
}

/// For commands that talk to nobody but one node or one server: two workers, whatever the machine has.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}
