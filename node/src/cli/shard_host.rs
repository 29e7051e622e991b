//! `cluster shard-host`: started by a node, never by hand.

use crate::config::low::LogFormat;
use crate::shard_host::child;
use crate::telemetry;
use clap::Args;

#[derive(Args, Debug)]
pub struct ShardHost {
    /// Process number of the node
    #[arg(long)]
    parent: u32,
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

impl ShardHost {
    pub fn run(self) -> anyhow::Result<()> {
        telemetry::logs::start(self.log_format);
        child::run(self.parent)
    }
}
