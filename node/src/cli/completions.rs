//! `cluster completions`.

use clap::Args;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  cluster completions bash > ~/.local/share/bash-completion/completions/cluster
  cluster completions zsh > \"${fpath[1]}/_cluster\"
  cluster completions fish > ~/.config/fish/completions/cluster.fish";

/// Print what a shell needs to complete commands and options
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// What it is for
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(self, mut program: clap::Command) -> anyhow::Result<()> {
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        super::print_bytes(&script)
    }
}
