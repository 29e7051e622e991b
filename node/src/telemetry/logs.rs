//! Logs. They carry request ids and counts, never a prompt or an answer.

use crate::config::low::LogFormat;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Of openraft only what somebody has to act upon. At `info` it tells of every step of every election. Its clock warns of a
/// second call to end it, which is how a member is made to end whatever it is doing; and all that the others warn of is that a
/// member does not answer, which `peers::attendance` says once, or answers too late to a vote that is over.
const DEFAULT: &str = "info,openraft=warn,openraft::core::tick=error,openraft::core::raft_core=error,\
     openraft::replication=error,openraft::network=error,openraft::engine::handler::replication_handler=error";

/// Once, at the start of a process. `CLUSTER_LOG` selects what is logged (`info`, `node=debug`, …).
pub fn start(format: LogFormat) {
    super::notes::start(format);
    match EnvFilter::try_from_env("CLUSTER_LOG") {
        Ok(asked) => tracing_subscriber::registry()
            .with(writer(format).with_filter(asked))
            .init(),
        Err(_) => tracing_subscriber::registry()
            .with(writer(format).with_filter(EnvFilter::new(DEFAULT)))
            .with(unanswered())
            .init(),
    }
}

fn writer<S: Subscriber + for<'a> LookupSpan<'a>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(BoxMakeWriter::new(std::io::stderr))
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        LogFormat::Text => layer.compact().boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Leaves out openraft's errors about one message that one member did not answer.
fn unanswered() -> FilterFn {
    filter_fn(|metadata| !is_unanswered(metadata))
}

/// Told by the fields, since what an event says is not known before it is said: replication calls an answer that did not
/// come `err` and all else `error`, and the core names the `target` of what it asked.
fn is_unanswered(metadata: &Metadata<'_>) -> bool {
    let has = |name: &str| metadata.fields().field(name).is_some();
    match metadata.target() {
        "openraft::replication" => has("err"),
        "openraft::core::raft_core" => has("target") && has("error"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::Event;
    use tracing_subscriber::layer::Context;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let metadata = event.metadata();
            let names: Vec<&str> = metadata.fields().iter().map(|field| field.name()).collect();
            let told = format!("{} {}", metadata.target(), names.join(" "));
            self.0.lock().unwrap().push(told);
        }
    }

    #[test]
    fn of_openraft_all_errors_are_told_but_those_of_a_member_that_does_not_answer() {
        let heard = Heard::default();
        let subscriber = tracing_subscriber::registry()
            .with(heard.clone().with_filter(EnvFilter::new(DEFAULT)))
            .with(unanswered());
        tracing::subscriber::with_default(subscriber, || {
            // As in openraft 0.9.
            tracing::error!(target: "openraft::replication", err = "unreachable", "RPCError");
            tracing::error!(target: "openraft::core::raft_core", error = "no", target = 2, "while requesting vote");
            tracing::warn!(target: "openraft::replication", error = "no", "error replication to target");
            tracing::error!(target: "openraft::replication", error = "the disk is full", "error replication to target");
            tracing::error!(target: "openraft::core::raft_core", error = "it is over", "quit RaftCore::main on error");
            tracing::warn!(target: "openraft::engine::handler::replication_handler", "update progress error");
            tracing::warn!(target: "openraft::storage", "something else");
            tracing::error!(target: "node::peers", err = "one of ours", target = 2, error = "too");
        });
        let heard = heard.0.lock().unwrap().clone();
        assert_eq!(
            heard,
            [
                "openraft::replication message error",
                "openraft::core::raft_core message error",
                "openraft::storage message",
                "node::peers err target error",
            ]
        );
    }
}
