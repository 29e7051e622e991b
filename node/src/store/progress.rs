//! How far a download is: a bar on a terminal, a line now and then elsewhere. Always on stderr.

use crate::telemetry::notes::{self, Note};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

const TEMPLATE: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// Quiet unless something takes long.
pub struct Progress {
    shape: Shape,
    bytes: u64,
    total: u64,
}

enum Shape {
    Bar(ProgressBar),
    Lines { what: String, said_tenths: u64 },
}

impl Progress {
    /// `total` 0: not known yet.
    pub fn start(what: &str, total: u64) -> Progress {
        let shape = if std::io::stderr().is_terminal() {
            Shape::Bar(bar(what, total))
        } else {
            lines(what)
        };
        Progress {
            shape,
            bytes: 0,
            total,
        }
    }

    pub fn advance(&mut self, bytes: u64) {
        self.set(self.bytes + bytes);
    }

    pub fn set(&mut self, bytes: u64) {
        self.bytes = bytes;
        match &mut self.shape {
            Shape::Bar(bar) => bar.set_position(bytes),
            Shape::Lines { what, said_tenths } => {
                let tenths = (bytes * 10).checked_div(self.total).unwrap_or(0).min(10);
                if tenths > *said_tenths {
                    *said_tenths = tenths;
                    notes::say(Note::Told, &format!("{what}: {}%", tenths * 10));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shape::Bar(bar) = &self.shape {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(TEMPLATE).expect("the template is a constant that parses"));
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn lines(what: &str) -> Shape {
    notes::say(Note::Told, what);
    Shape::Lines {
        what: what.to_owned(),
        said_tenths: 0,
    }
}
