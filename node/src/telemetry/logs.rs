//! Logs. They carry request ids and counts, never a prompt or an answer.

use crate::config::low::LogFormat;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Of openraft only what somebody has to act upon: at `info` it tells of every step of every election, and its clock warns
/// of a second call to end it, which is how a member is made to end whatever it is doing.
const DEFAULT: &str = "info,openraft=warn,openraft::core::tick=error";

/// Once, at the start of a process. `CLUSTER_LOG` selects what is logged (`info`, `node=debug`, …).
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("CLUSTER_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(BoxMakeWriter::new(std::io::stderr))
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        LogFormat::Text => builder.compact().init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
