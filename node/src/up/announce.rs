//! What a starting node says to whoever started it.

use crate::config::Config;
use crate::config::high::Auth;
use crate::gateway::ServedModel;
use crate::peers::entry::{Entry, How};
use crate::telemetry::notes::{self, Note};
use coordinator::cost::{StepCost, StepWork};
use kernels::cpu::Level;
use proto::NodeId;
use serde_json::json;
use std::io::{self, Write, stdout};
use std::net::SocketAddr;
use std::path::Path;

/// What stdout is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// A person reads along.
    Words,
    /// One line of JSON when the node is ready, and nothing else.
    Json,
}

/// A node that serves.
pub struct Ready<'a> {
    pub node: NodeId,
    pub quic: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    pub http: SocketAddr,
    /// Of HTTPS, as it was given.
    pub certificate: Option<&'a Path>,
    /// Where one was made just now.
    pub key: Option<&'a str>,
    pub auth: Auth,
    pub models: &'a [ReadyModel],
}

pub struct ReadyModel {
    pub name: String,
    pub talks: Talks,
}

impl ReadyModel {
    pub fn of(served: &ServedModel) -> ReadyModel {
        ReadyModel {
            name: served.name.clone(),
            talks: match served.text.template() {
                Some(_) => Talks::Chat,
                None => Talks::Completions,
            },
        }
    }
}

/// Which way a model is best tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Talks {
    Chat,
    /// It has no chat template.
    Completions,
}

impl Output {
    pub fn say(self, line: &str) {
        match self {
            Output::Words => told(writeln!(stdout(), "{line}")),
            Output::Json => notes::say(Note::Told, line),
        }
    }

    pub fn ready(self, ready: &Ready<'_>) {
        match self {
            Output::Words => told(writeln!(stdout(), "{}", ready.words())),
            Output::Json => told(writeln!(stdout(), "{}", ready.json())),
        }
    }
}

/// Nobody has to read what a node says: it serves all the same.
fn told(_: io::Result<()>) {}

/// How the node came to be a member.
pub fn entry_line(entry: &Entry) -> String {
    let (node, members) = (entry.state.node(), entry.state.applied().members().count());
    let quic = entry
        .peers
        .local_address()
        .map_or("?".to_owned(), |address| address.to_string());
    match entry.how {
        How::Founded => format!(
            "cluster  new, of this node alone (node {node}, QUIC {quic}); others join with `cluster token create`"
        ),
        How::Joined => format!("cluster  joined as node {node} (QUIC {quic}), {members} node(s) now"),
        How::Returned => format!("cluster  node {node} of {members} (QUIC {quic})"),
        How::ReturnedWithToken => format!(
            "cluster  node {node} of {members} (QUIC {quic}); it is a member already, and the token was not used: if its \
             cluster was recovered or restored elsewhere, let it join with an empty --data-dir"
        ),
    }
}

/// Where a node comes up and the cluster does not agree.
pub const NO_QUORUM: &str = "cluster  no quorum: served is what this node knows of, with the keys that it knows; changes, and models \
                             that are new here, wait until enough voters reach each other";

/// What was chosen for the machine as a whole.
pub fn machine_lines(config: &Config) -> Vec<String> {
    let wish = config
        .cpu_level
        .value
        .as_deref()
        .and_then(|level| level.parse().ok());
    let level = Level::choose(wish);
    let why = match wish {
        Some(_) => "asked for, as far as the CPU has it",
        None => "the best this CPU has",
    };
    vec![
        format!("device   cpu, {level} ({why}; this program has no other device yet)"),
        format!("threads  {} ({})", config.threads.value, config.threads.origin),
    ]
}

/// Lengths that a person can picture.
const PROMPT_TOKENS: u32 = 512;
const CONTEXT_TOKENS: u64 = 256;
const STREAMS: u64 = 8;
/// The engine cuts prompts into steps of about this length while nobody else waits.
const PROMPT_STEP_SECS: f64 = 0.25;

pub fn too_big_line(model: &str, reason: &str) -> String {
    format!(
        "deploy   {model} goes over several nodes of the cluster, as soon as they have room for it in all: {reason}"
    )
}

/// What to expect of a replica whose steps were measured while it was loading.
pub fn speed_line(model: &str, cost: StepCost) -> String {
    let decode_secs = |streams: u64| {
        cost.secs(StepWork {
            tokens: streams,
            context: streams * CONTEXT_TOKENS,
        })
    };
    if decode_secs(1) <= 0.0 {
        return format!("speed    {model}: not measured, because the first steps took too long");
    }
    let prompt_secs = cost.marginal_secs(StepWork::slice(0, PROMPT_TOKENS));
    let steps = (prompt_secs / PROMPT_STEP_SECS).ceil();
    format!(
        "speed    {model}: about {:.0} tok/s for one stream, {:.0} for {STREAMS} at a time, first token of a prompt \
         of {PROMPT_TOKENS} after {:.2} s (from steps measured just now; whatever else runs here slows it)",
        1.0 / decode_secs(1),
        STREAMS as f64 / decode_secs(STREAMS),
        prompt_secs + steps * cost.fixed_secs,
    )
}

/// Shown once: it is kept nowhere.
pub fn key_lines(key: &str) -> String {
    format!("API key  {key}  (shown once; keep it)")
}

/// Keys are kept as hashes, so that the first start alone could show one.
const NO_KEY_SHOWN: &str = "\n  with the key that was shown at the first start, or a new one: export CLUSTER_KEY=$(cluster key create)\n";

impl Ready<'_> {
    fn json(&self) -> serde_json::Value {
        let names: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
        json!({
            "http": self.url(),
            "key": self.key,
            "model": names.first(),
            "models": names,
            "node": self.node.0,
            "quic": self.quic.to_string(),
            "pid": std::process::id(),
        })
    }

    fn words(&self) -> String {
        let mut words = format!("\nserving  {}\n", self.url());
        if let Some(model) = self.models.first() {
            words.push_str(&format!("\n  {}\n", self.curl(model)));
            if let (Auth::Keys, None) = (self.auth, self.key) {
                words.push_str(NO_KEY_SHOWN);
            }
        }
        words
    }

    fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.http)
    }

    fn curl(&self, model: &ReadyModel) -> String {
        let (path, mut body) = match model.talks {
            Talks::Chat => (
                "chat/completions",
                json!({"messages": [{"role": "user", "content": "Why is the sky blue?"}]}),
            ),
            Talks::Completions => (
                "completions",
                json!({"prompt": "The sky is blue because", "max_tokens": 64}),
            ),
        };
        body["model"] = json!(model.name);
        format!(
            "curl{} {}/v1/{path}{} -H 'Content-Type: application/json' -d {}",
            self.believed(),
            self.url(),
            self.authorization(),
            quoted(&body.to_string())
        )
    }

    /// A certificate may be one that no public authority knows.
    fn believed(&self) -> String {
        let path = self.certificate.map(|path| quoted(&path.to_string_lossy()));
        path.map_or(String::new(), |path| format!(" --cacert {path}"))
    }

    fn authorization(&self) -> String {
        match (self.auth, self.key) {
            (Auth::Open, _) => String::new(),
            (Auth::Keys, Some(key)) => format!(" -H 'Authorization: Bearer {key}'"),
            (Auth::Keys, None) => " -H \"Authorization: Bearer $CLUSTER_KEY\"".to_owned(),
        }
    }
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_https_the_curl_believes_the_nodes_certificate() {
        let models = [ReadyModel {
            name: "a".to_owned(),
            talks: Talks::Chat,
        }];
        let words = Ready {
            node: NodeId(1),
            quic: "127.0.0.1:8001".parse().unwrap(),
            scheme: "https",
            http: "127.0.0.1:8000".parse().unwrap(),
            certificate: Some(Path::new("my certs/node.pem")),
            key: None,
            auth: Auth::Open,
            models: &models,
        }
        .words();
        assert!(
            words.contains("curl --cacert 'my certs/node.pem' https://127.0.0.1:8000/v1/"),
            "{words}"
        );
    }

    fn ready(models: &[ReadyModel], key: Option<&'static str>, auth: Auth) -> String {
        Ready {
            node: NodeId(1),
            quic: "127.0.0.1:8001".parse().unwrap(),
            scheme: "http",
            http: "127.0.0.1:8000".parse().unwrap(),
            certificate: None,
            key,
            auth,
            models,
        }
        .words()
    }

    #[test]
    fn speed_is_told_where_it_was_measured() {
        let nothing = StepCost {
            fixed_secs: 0.0,
            per_token_secs: 0.0,
            per_context_secs: 0.0,
        };
        assert!(speed_line("a", nothing).contains("not measured"));
        let measured = StepCost {
            fixed_secs: 0.008,
            per_token_secs: 0.002,
            ..nothing
        };
        let line = speed_line("a", measured);
        for words in ["a: about 100 tok/s", "333 for 8", "after 1.06 s", "measured"] {
            assert!(line.contains(words), "no {words:?} in {line}");
        }
    }

    #[test]
    fn the_curl_can_be_pasted_as_it_stands() {
        let models = [ReadyModel {
            name: "a".to_owned(),
            talks: Talks::Chat,
        }];
        let words = ready(&models, Some("ck_1_2"), Auth::Keys);
        assert!(
            words
                .contains("curl http://127.0.0.1:8000/v1/chat/completions -H 'Authorization: Bearer ck_1_2'")
        );
        assert!(words.contains(r#""model":"a""#), "{words}");
        assert!(!ready(&models, None, Auth::Open).contains("Authorization"));
        assert!(ready(&models, None, Auth::Keys).contains("CLUSTER_KEY=$(cluster key create)"));
    }

    #[test]
    fn a_name_with_a_quote_stays_inside_the_quotes() {
        let models = [ReadyModel {
            name: "it's".to_owned(),
            talks: Talks::Completions,
        }];
        assert!(ready(&models, None, Auth::Open).contains(r"it'\''s"));
    }
}
