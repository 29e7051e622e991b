//! `cluster bench`.

use crate::bench::{self, BenchServeArgs};
use clap::{Args, Subcommand};

/// Measure a server
#[derive(Args, Debug)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Serve(BenchServeArgs),
}

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Serve(arguments) => super::runtime()?.block_on(bench::run(arguments)),
        }
    }
}
