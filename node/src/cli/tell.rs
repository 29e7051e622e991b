//! Lines on stdout, for commands.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::process::exit;

/// `println!` without its panic: a reader that has seen enough, such as `head`, ends the command, and a full disk is an
/// error like others.
macro_rules! tell {
    ($($words:tt)*) => {
        $crate::cli::tell::line(format_args!($($words)*))
    };
}
pub(super) use tell;

pub fn line(words: Arguments<'_>) {
    judge(writeln!(stdout(), "{words}"));
}

/// As it is and at once, for what comes piece by piece.
pub fn piece(text: &str) {
    let mut out = stdout();
    judge(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn judge(written: io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            let _ = writeln!(stderr(), "error: stdout cannot be written: {error}");
            exit(1)
        }
    }
}
