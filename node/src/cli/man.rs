//! `cluster man`.

use anyhow::Context;
use clap::Args;
use std::fs;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cluster man | man -l -
  cluster man --out ~/.local/share/man/man1";

/// Print the manual page, or write one for each command
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Man {
    /// Write cluster.1, cluster-up.1 and so on into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub fn run(self, program: clap::Command) -> anyhow::Result<()> {
        let Some(folder) = self.out else {
            let mut page = Vec::new();
            clap_mangen::Man::new(program).render(&mut page)?;
            return super::print_bytes(&page);
        };
        fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(program, &folder))
            .with_context(|| folder.display().to_string())
    }
}
