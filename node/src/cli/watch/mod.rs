//! `cluster top` and `cluster status --watch`: what the node does, again and again.
//!
//! [`rates`] makes figures of two reports, [`screen`] lines of figures, [`terminal`] is the device.

mod rates;
mod screen;
mod terminal;

use crate::control::report::StatusReport;
use crate::control::{ControlRequest, client};
use rates::History;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::Path;
use std::time::{Duration, Instant};
use terminal::{Key, Terminal};

/// How soon a key or a new size of the window is noticed.
const ATTENTION: Duration = Duration::from_millis(100);

/// What is written each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A screen on a terminal, else a line.
    Words,
    /// The report, as one line.
    Json,
}

/// Until the person leaves, the reader of the pipe does, or the node ends.
pub fn run(data_dir: &Path, format: Format, interval: Duration) -> anyhow::Result<()> {
    match format {
        Format::Json => lines(data_dir, interval, |report, _| serde_json::to_string(report)),
        Format::Words if stdout().is_terminal() && stdin().is_terminal() => live(data_dir, interval),
        Format::Words => lines(data_dir, interval, |report, history| {
            Ok(screen::line(report, history))
        }),
    }
}

fn status(data_dir: &Path) -> anyhow::Result<StatusReport> {
    Ok(client::ask(data_dir, &ControlRequest::Status)?)
}

fn lines(
    data_dir: &Path,
    interval: Duration,
    line: impl Fn(&StatusReport, &History) -> serde_json::Result<String>,
) -> anyhow::Result<()> {
    let mut history = History::default();
    loop {
        let report = status(data_dir)?;
        history.add(Instant::now(), &report);
        if writeln!(stdout(), "{}", line(&report, &history)?).is_err() {
            // Nobody reads any more.
            return Ok(());
        }
        std::thread::sleep(interval);
    }
}

fn live(data_dir: &Path, interval: Duration) -> anyhow::Result<()> {
    let mut report = status(data_dir)?;
    let mut history = History::default();
    history.add(Instant::now(), &report);
    let mut terminal = Terminal::open()?;
    let mut asked = Instant::now();
    loop {
        terminal.show(|size| screen::frame(&report, &history, size))?;
        let redraw = loop {
            match terminal.key(ATTENTION) {
                Some(Key::Leave) => return Ok(()),
                Some(Key::Other) | None => {}
            }
            if asked.elapsed() >= interval {
                break Redraw::News;
            }
            if terminal.has_new_size() {
                break Redraw::Size;
            }
        };
        if redraw == Redraw::News {
            asked = Instant::now();
            report = status(data_dir)?;
            history.add(asked, &report);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Redraw {
    News,
    Size,
}
