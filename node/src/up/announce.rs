//! What a starting node says to whoever started it.

use crate::config::Config;
use crate::config::high::Auth;
use kernels::cpu::Level;
use serde_json::json;
use std::net::SocketAddr;

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
    pub http: SocketAddr,
    /// Where one was made just now.
    pub key: Option<&'a str>,
    pub auth: Auth,
    pub models: &'a [ReadyModel],
}

pub struct ReadyModel {
    pub name: String,
    pub talks: Talks,
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
            Output::Words => println!("{line}"),
            Output::Json => eprintln!("{line}"),
        }
    }

    pub fn ready(self, ready: &Ready<'_>) {
        match self {
            Output::Words => println!("{}", ready.words()),
            Output::Json => println!("{}", ready.json()),
        }
    }
}

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

/// Shown once: it is kept nowhere.
pub fn key_lines(key: &str) -> String {
    format!("API key  {key}  (shown once; keep it)")
}

impl Ready<'_> {
    fn json(&self) -> serde_json::Value {
        let names: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
        json!({
            "http": format!("http://{}", self.http),
            "key": self.key,
            "model": names.first(),
            "models": names,
            "pid": std::process::id(),
        })
    }

    fn words(&self) -> String {
        let mut words = format!("\nserving  http://{}\n", self.http);
        if let Some(model) = self.models.first() {
            words.push_str(&format!("\n  {}\n", self.curl(model)));
        }
        words
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
        let body = body.to_string().replace('\'', "'\\''");
        format!(
            "curl http://{}/v1/{path}{} -H 'Content-Type: application/json' -d '{body}'",
            self.http,
            self.authorization()
        )
    }

    fn authorization(&self) -> String {
        match (self.auth, self.key) {
            (Auth::Open, _) => String::new(),
            (Auth::Keys, Some(key)) => format!(" -H 'Authorization: Bearer {key}'"),
            (Auth::Keys, None) => " -H \"Authorization: Bearer $CLUSTER_KEY\"".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(models: &[ReadyModel], key: Option<&'static str>, auth: Auth) -> String {
        Ready {
            http: "127.0.0.1:8000".parse().unwrap(),
            key,
            auth,
            models,
        }
        .words()
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
