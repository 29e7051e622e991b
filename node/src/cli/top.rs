//! `cluster top`.

use super::data_dir::DataDir;
use super::watch::{self, Format};
use clap::Args;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  cluster top
  cluster top --interval 5 >> load.log";

/// Watch the node of this host: tokens a second, queue, KV cache, time to the first token; q leaves
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Top {
    #[command(flatten)]
    data_dir: DataDir,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

impl Top {
    pub fn run(self) -> anyhow::Result<()> {
        watch::run(
            &self.data_dir.folder()?,
            Format::Words,
            Duration::from_secs(self.interval),
        )
    }
}
