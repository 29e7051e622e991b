//! Lines on stderr for whoever started the program. They look as the logs do, so that what reads those as JSON need not
//! expect anything else between them.

use crate::config::low::LogFormat;
use serde_json::json;
use std::io::{Write, stderr};
use std::sync::OnceLock;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Where the lines of the program itself come from, beside those of its modules.
const TARGET: &str = "cluster";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// What happens.
    Told,
    /// Why the program ends.
    Error,
}

/// Once, with the logs; before, notes are text.
pub(super) fn start(format: LogFormat) {
    let _ = FORMAT.set(format);
}

/// One line. Nobody has to read it.
pub fn say(note: Note, words: &str) {
    let format = FORMAT.get().copied().unwrap_or_default();
    let _ = writeln!(stderr(), "{}", line(note, words, format));
}

fn line(note: Note, words: &str, format: LogFormat) -> String {
    match (format, note) {
        (LogFormat::Text, Note::Told) => words.to_owned(),
        (LogFormat::Text, Note::Error) => format!("error: {words}"),
        (LogFormat::Json, note) => {
            let level = match note {
                Note::Told => "INFO",
                Note::Error => "ERROR",
            };
            json!({"timestamp": now(), "level": level, "message": words, "target": TARGET}).to_string()
        }
    }
}

/// As the logs write it.
fn now() -> String {
    let mut text = String::new();
    match SystemTime.format_time(&mut Writer::new(&mut text)) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_note_looks_as_the_logs_do() {
        assert_eq!(line(Note::Told, "serving", LogFormat::Text), "serving");
        assert_eq!(
            line(Note::Error, "no \"room\"", LogFormat::Text),
            "error: no \"room\""
        );
        for (note, level) in [(Note::Told, "INFO"), (Note::Error, "ERROR")] {
            let told = line(note, "no \"room\"\nhere", LogFormat::Json);
            assert!(!told.contains('\n'), "{told}");
            let mut told: Value = serde_json::from_str(&told).unwrap();
            let timestamp = told["timestamp"].take();
            assert!(timestamp.as_str().unwrap().ends_with('Z'), "{timestamp}");
            let expected = json!({"timestamp": null, "level": level, "message": "no \"room\"\nhere", "target": "cluster"});
            assert_eq!(told, expected);
        }
    }
}
