//! The command line. Exit codes: 0 done, 1 failed with one clear line on stderr, 2 wrong usage.

mod agreed;
mod authority;
mod backup;
mod bench;
mod chat;
mod completions;
mod data_dir;
mod deploy;
mod drain;
mod key;
mod man;
mod node;
mod pull;
mod server;
mod shard_host;
mod sim;
mod status;
mod store;
mod tell;
mod tenant;
mod token;
mod top;
mod up;
mod variable;
mod watch;

use crate::config::high::{ConfigError, Machine};
use crate::telemetry::notes::{self, Note};
use anyhow::Context;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cluster up
  cluster chat
  cluster up --model ./model.gguf --http 0.0.0.0:8000
  cluster help deploy";

/// A distributed server for large language models: one binary, an OpenAI-compatible API.
#[derive(Parser, Debug)]
#[command(
    name = "cluster",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(up::Up),
    Pull(pull::Pull),
    Store(store::StoreCommand),
    Status(status::Status),
    Top(top::Top),
    Chat(chat::Chat),
    Token(token::Token),
    Node(node::Node),
    Drain(drain::Drain),
    Deploy(deploy::Deploy),
    Undeploy(deploy::Undeploy),
    Authority(authority::Authority),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Recover(backup::Recover),
    Key(key::Key),
    Tenant(tenant::Tenant),
    Bench(bench::Bench),
    Sim(sim::Sim),
    Completions(completions::Completions),
    Man(man::Man),
    #[command(hide = true)]
    ShardHost(shard_host::ShardHost),
}

/// As clap's own.
const WRONG_USAGE: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    let matches = matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli.command, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the causes had to say.
            notes::say(Note::Error, &one_line(&format!("{error:#}")));
            match error.downcast_ref::<ConfigError>() {
                Some(error) if error.is_wrong_usage() => ExitCode::from(WRONG_USAGE),
                Some(_) | None => ExitCode::FAILURE,
            }
        }
    }
}

/// What was typed and what the environment adds to it; ends the program where that is wrong.
fn matches() -> ArgMatches {
    let (mut command, typed) = (Cli::command(), std::env::args_os().collect::<Vec<_>>());
    match command.try_get_matches_from_mut(&typed) {
        Ok(matches) => matches,
        Err(error) => {
            variable::named(error, &command, &typed, |name| std::env::var_os(name).is_some()).exit()
        }
    }
}

fn one_line(text: &str) -> String {
    let mut line = String::new();
    for part in text.lines().map(str::trim) {
        line.push_str(match line.chars().last() {
            None => "",
            Some(':' | ';' | ',' | '.') => " ",
            Some(_) => "; ",
        });
        line.push_str(part);
    }
    line
}

fn run(command: Command, matches: &ArgMatches) -> anyhow::Result<()> {
    match command {
        Command::Up(up) => up.run(matches.subcommand_matches("up").expect("clap chose this command")),
        Command::Pull(pull) => pull.run(),
        Command::Store(store) => store.run(),
        Command::Status(status) => status.run(),
        Command::Top(top) => top.run(),
        Command::Chat(chat) => chat.run(),
        Command::Token(token) => token.run(),
        Command::Node(node) => node.run(),
        Command::Drain(drain) => drain.run(),
        Command::Deploy(deploy) => deploy.run(),
        Command::Undeploy(undeploy) => undeploy.run(),
        Command::Authority(authority) => authority.run(),
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
        Command::Recover(recover) => recover.run(),
        Command::Key(key) => key.run(),
        Command::Tenant(tenant) => tenant.run(),
        Command::Bench(bench) => bench.run(),
        Command::Sim(sim) => sim.run(),
        Command::Completions(completions) => completions.run(Cli::command()),
        Command::Man(man) => man.run(Cli::command()),
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

/// The model store: the one that was named, or that of this host.
fn store_folder(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match named {
        Some(folder) => Ok(folder),
        None => Ok(Machine::here()
            .home
            .context("HOME is not set: give --store DIR")?
            .join(".cache/cluster/store")),
    }
}

/// To stdout; a reader that has seen enough, such as `head`, is no error.
fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(command: &clap::Command) -> Vec<clap::Command> {
        let children = command
            .get_subcommands()
            .filter(|child| !child.is_hide_set() && child.get_name() != "help");
        children
            .flat_map(|child| [vec![child.clone()], visible(child)].concat())
            .collect()
    }

    #[test]
    fn the_description_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_and_shows_examples() {
        let all = Cli::command();
        for command in [vec![all.clone()], visible(&all)].concat() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} says nothing");
            let shown = command
                .get_after_help()
                .map(|help| help.to_string())
                .unwrap_or_default();
            assert!(shown.contains("  cluster "), "{name} shows no example");
        }
    }

    #[test]
    fn every_argument_is_described() {
        let mut silent = Vec::new();
        for command in visible(&Cli::command()) {
            let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
            let undescribed = arguments.filter(|argument| argument.get_help().is_none());
            silent
                .extend(undescribed.map(|argument| format!("{} {}", command.get_name(), argument.get_id())));
        }
        assert_eq!(silent, [""; 0]);
    }

    #[test]
    fn a_typing_mistake_is_met_with_what_was_meant() {
        for (line, meant) in [
            (vec!["cluster", "stauts"], "status"),
            (vec!["cluster", "up", "--thread", "2"], "--threads"),
            (vec!["cluster", "key", "craete"], "create"),
        ] {
            let error = Cli::command().try_get_matches_from(line).unwrap_err();
            assert!(error.to_string().contains(meant), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn several_lines_of_a_cause_become_one() {
        assert_eq!(
            one_line("asked:\n  here: no\n  there: no"),
            "asked: here: no; there: no"
        );
    }

    #[test]
    fn what_is_no_number_of_a_node_is_told_where_numbers_are() {
        for command in [vec!["node", "rm"], vec!["drain"]] {
            let line = [vec!["cluster"], command, vec!["abc"]].concat();
            let told = Cli::command().try_get_matches_from(line).unwrap_err().to_string();
            assert!(told.contains("cluster node list"), "{told}");
        }
    }
}
