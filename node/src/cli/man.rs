//! `cluster man`.

use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use std::{fs, io};

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
        let mut program = program.disable_help_subcommand(true);
        program.build();
        let source = format!(
            "{} {}",
            program.get_name(),
            program.get_version().unwrap_or_default()
        );
        let Some(folder) = self.out else {
            return super::print_bytes(&page(program, &source)?.1);
        };
        fs::create_dir_all(&folder)
            .and_then(|()| write_all(&program, &source, &folder))
            .with_context(|| folder.display().to_string())
    }
}

/// A page for this command and for each one below it.
fn write_all(command: &clap::Command, source: &str, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_all(below, source, folder)?;
    }
    let (name, page) = page(command.clone(), source)?;
    fs::write(folder.join(name), page)
}

/// The page's file name, and the page. What stands below a command's help is its examples.
fn page(command: clap::Command, source: &str) -> io::Result<(String, Vec<u8>)> {
    let man = clap_mangen::Man::new(command).source(source);
    let mut page = Vec::new();
    man.render(&mut page)?;
    let page = String::from_utf8_lossy(&page)
        .replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n")
        .replace(".SH EXTRA\nExample:\n", ".SH EXAMPLES\n");
    Ok((man.get_filename(), page.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_program_below_and_its_examples_above_them() {
        for heading in ["Examples", "Example"] {
            look_at_page(&format!("{heading}:\n  program part"));
        }
    }

    fn look_at_page(examples: &str) {
        let part = clap::Command::new("part").after_help(examples.to_owned());
        let mut program = clap::Command::new("program").version("1.2").subcommand(part);
        program.build();
        let part = program.find_subcommand("part").expect("it was added");
        let (name, page) = page(part.clone(), "program 1.2").expect("no disk is asked");
        let page = String::from_utf8(page).expect("a page is text");
        assert_eq!(name, "program-part.1");
        assert!(page.contains(".TH program-part 1  \"program 1.2\""), "{page}");
        assert!(page.contains(".SH EXAMPLES\n"), "{page}");
        assert!(!page.contains("EXTRA") && !page.contains("Example"), "{page}");
    }
}
