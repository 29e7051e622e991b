//! The TOML file.

use super::address;
use super::byte_size::ByteSize;
use super::high::ConfigError;
use super::low::{Device, KvCache, LogFormat};
use crate::path::in_full;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Keys are the flags' names with underscores. Unknown keys are errors, since they are typing mistakes.
#[derive(Deserialize, Clone, PartialEq, Default, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    pub model: Vec<String>,
    pub data_dir: Option<PathBuf>,
    pub store: Option<PathBuf>,
    pub store_max: Option<ByteSize>,
    pub memory: Option<ByteSize>,
    #[serde(deserialize_with = "address::in_file")]
    pub http: Option<SocketAddr>,
    #[serde(deserialize_with = "address::in_file")]
    pub quic: Option<SocketAddr>,
    pub join: Option<String>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub connections_max: Option<usize>,
    pub connections_per_address_max: Option<usize>,
    pub device: Option<Device>,
    pub threads: Option<usize>,
    pub tp: Option<usize>,
    pub kv_cache: Option<KvCache>,
    pub cpu_level: Option<String>,
    pub no_auth: Option<bool>,
    pub otlp_endpoint: Option<String>,
    pub log_format: Option<LogFormat>,
}

pub fn read(path: &Path) -> Result<FileConfig, ConfigError> {
    let bad = |reason| ConfigError::File {
        path: in_full(path),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    parse(&text).map_err(bad)
}

/// Errors are one line: where, and what is wrong.
fn parse(text: &str) -> Result<FileConfig, String> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text[..start].matches('\n').count() + 1;
        match key_at(text, start) {
            Some(key) if !error.message().contains(&format!("`{key}`")) => {
                format!("line {line}: `{key}`: {}", error.message())
            }
            Some(_) | None => format!("line {line}: {}", error.message()),
        }
    })
}

/// The key whose value stands there; a value may go over several lines. `None`: the text is no TOML, so nobody knows.
fn key_at(text: &str, place: usize) -> Option<&str> {
    text.parse::<toml::Table>().ok()?;
    let end = text[place..].find('\n').map_or(text.len(), |end| place + end);
    let mut lines = text[..end].lines().rev();
    lines.find_map(|line| {
        let key = line.split_once('=')?.0.trim();
        let is_bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
        (!key.is_empty() && key.chars().all(is_bare)).then_some(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_is_an_error_with_its_line() {
        let error = parse("tp = 2\nthread = 3\n").unwrap_err();
        assert!(error.starts_with("line 2: unknown field `thread`"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_told_with_its_key() {
        for (text, words) in [
            ("tp = 2\nthreads = \"x\"\n", "line 2: `threads`: invalid type"),
            (
                "model = [\n  \"a=b\",\n  1,\n]\n",
                "line 3: `model`: invalid type",
            ),
            ("device = \"gpu\"", "line 1: `device`: unknown variant `gpu`"),
            ("http = \"here\"", "line 1: `http`: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
        let error = parse("tp = 2\nthreads\n").unwrap_err();
        assert!(!error.contains("`tp`"), "{error}");
    }
}
