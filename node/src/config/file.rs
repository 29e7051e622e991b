//! The TOML file.

use super::address;
use super::byte_size::ByteSize;
use super::high::ConfigError;
use super::low::{Device, KvCache, LogFormat};
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
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    parse(&text).map_err(|reason| ConfigError::File {
        path: path.to_owned(),
        reason,
    })
}

/// Errors are one line: where, and what is wrong.
fn parse(text: &str) -> Result<FileConfig, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().map_or("", |span| &text[..span.start]);
        format!("line {}: {}", before.matches('\n').count() + 1, error.message())
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
}
