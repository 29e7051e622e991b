//! The `cluster` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::cli::main()
}
