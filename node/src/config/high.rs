//! What holds: every setting resolved, each with where it came from.

use super::byte_size::ByteSize;
use super::file::{self, FileConfig};
use super::low::{Device, KvCache, LogFormat, Sources, Typed, UpArgs};
use super::shown::Shown;
use crate::store::catalogue;
use crate::store::spec::{NamedSpec, SpecError};
use crate::trust::JoinToken;
use crate::trust::token::TokenError;
use kernels::cpu::{Level, UnknownLevel};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Some kilobytes each while they are idle; the limit on open files is raised to hold them.
const CONNECTIONS_MAX: usize = 16_384;
/// Several times what one busy client holds.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1024;

#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    pub models: Setting<Vec<NamedSpec>>,
    pub data_dir: Setting<PathBuf>,
    pub store: Setting<PathBuf>,
    pub store_max: Setting<Option<ByteSize>>,
    pub memory: Setting<Option<ByteSize>>,
    pub http: Setting<SocketAddr>,
    pub quic: Setting<SocketAddr>,
    pub join: Setting<Option<JoinToken>>,
    pub tls_cert: Setting<Option<PathBuf>>,
    pub tls_key: Setting<Option<PathBuf>>,
    pub connections_max: Setting<usize>,
    /// `None`: the default, which spares loopback addresses.
    pub connections_per_address_max: Setting<Option<usize>>,
    pub device: Setting<Device>,
    pub threads: Setting<usize>,
    pub tp: Setting<usize>,
    pub kv_cache: Setting<KvCache>,
    pub cpu_level: Setting<Option<String>>,
    pub auth: Setting<Auth>,
    pub otlp_endpoint: Setting<Option<String>>,
    pub log_format: Setting<LogFormat>,
}

/// Who is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Auth {
    /// Holders of an API key.
    Keys,
    /// Everybody, as the default tenant.
    Open,
}

/// A value and where it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    Flag,
    Environment,
    File,
    Default,
}

#[derive(thiserror::Error, PartialEq, Debug)]
pub enum ConfigError {
    #[error("config file {path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("--no-auth on {0} would let the whole network in: use a loopback address such as 127.0.0.1:8000")]
    OpenToNetwork(SocketAddr),
    #[error("--cpu-level: {0}")]
    CpuLevel(UnknownLevel),
    #[error("--{0} must be at least 1")]
    Zero(&'static str),
    #[error("--threads {0} is more than the {THREADS_MAX} that a replica can have")]
    TooManyThreads(usize),
    #[error("--{given} needs --{missing} beside it: HTTPS takes a certificate and its key")]
    HalfOfTls {
        given: &'static str,
        missing: &'static str,
    },
    #[error("--tp {tp} needs at least as many threads, but --threads is {threads}")]
    FewerThreadsThanRanks { tp: usize, threads: usize },
    #[error("--join: {0}")]
    Token(TokenError),
    #[error("--model none stands alone: leave out the other models")]
    NoneAndOthers,
    #[error("--model: the name '{0}' is given twice: use NAME=SPEC to tell the models apart")]
    TwiceNamed(String),
    #[error("neither HOME nor {flag} is set: give {flag} DIR")]
    NoHome { flag: &'static str },
    #[error("{error} (given as {variable})")]
    OfVariable {
        error: Box<ConfigError>,
        variable: String,
    },
}

impl ConfigError {
    /// Whether the arguments cannot be meant, whatever this machine has.
    pub fn is_wrong_usage(&self) -> bool {
        match self {
            ConfigError::OpenToNetwork(_)
            | ConfigError::CpuLevel(_)
            | ConfigError::Zero(_)
            | ConfigError::TooManyThreads(_)
            | ConfigError::HalfOfTls { .. }
            | ConfigError::FewerThreadsThanRanks { .. }
            | ConfigError::NoneAndOthers
            | ConfigError::TwiceNamed(_) => true,
            ConfigError::File { .. }
            | ConfigError::Spec(_)
            | ConfigError::Token(_)
            | ConfigError::NoHome { .. } => false,
            ConfigError::OfVariable { error, .. } => error.is_wrong_usage(),
        }
    }

    /// The setting that is to blame, by its id.
    fn setting(&self) -> Option<&str> {
        match self {
            ConfigError::File { .. } => Some("config"),
            ConfigError::Spec(_) | ConfigError::NoneAndOthers | ConfigError::TwiceNamed(_) => Some("model"),
            ConfigError::OpenToNetwork(_) => Some("no_auth"),
            ConfigError::CpuLevel(_) => Some("cpu_level"),
            ConfigError::Zero(setting) | ConfigError::HalfOfTls { given: setting, .. } => Some(setting),
            ConfigError::TooManyThreads(_) => Some("threads"),
            ConfigError::FewerThreadsThanRanks { .. } => Some("tp"),
            ConfigError::Token(_) => Some("join"),
            ConfigError::NoHome { .. } | ConfigError::OfVariable { .. } => None,
        }
    }

    /// With the variable, where the setting came from one: nobody may have typed the option that it stands for.
    fn with_variable(self, sources: &Sources<'_>) -> ConfigError {
        let id = self.setting().map(|setting| setting.replace('-', "_"));
        match id.as_deref().map(|id| (id, sources.typed(id))) {
            Some((id, Typed::Environment)) => ConfigError::OfVariable {
                variable: format!("CLUSTER_{}", id.to_uppercase()),
                error: Box::new(self),
            },
            Some((_, Typed::Flag)) | None => self,
        }
    }
}

/// More than any host has CPUs; each thread takes memory, whether it has a CPU or not.
const THREADS_MAX: usize = 1024;

/// What the machine says when nobody else does.
#[derive(Clone, Debug)]
pub struct Machine {
    pub home: Option<PathBuf>,
    pub cpus: usize,
}

impl Machine {
    pub fn here() -> Machine {
        Machine {
            home: std::env::home_dir(),
            cpus: crate::os::affinity::usable_cpus(),
        }
    }

    fn below_home(&self, flag: &'static str, path: &str) -> Result<PathBuf, ConfigError> {
        self.home
            .as_ref()
            .map(|home| home.join(path))
            .ok_or(ConfigError::NoHome { flag })
    }
}

impl Config {
    /// Reads the file that `low` names, if any.
    pub fn resolve(low: UpArgs, sources: &Sources<'_>, machine: &Machine) -> Result<Config, ConfigError> {
        Config::settled(low, sources, machine).map_err(|error| error.with_variable(sources))
    }

    fn settled(low: UpArgs, sources: &Sources<'_>, machine: &Machine) -> Result<Config, ConfigError> {
        let file = low
            .config
            .as_deref()
            .map(file::read)
            .transpose()?
            .unwrap_or_default();
        let config = Config::merge(low, file, sources, machine)?;
        config.check()?;
        Ok(config)
    }

    fn merge(
        low: UpArgs,
        file: FileConfig,
        sources: &Sources<'_>,
        machine: &Machine,
    ) -> Result<Config, ConfigError> {
        let pick = Pick { sources };
        let data_dir = || machine.below_home("--data-dir", ".local/share/cluster");
        let store = || machine.below_home("--store", ".cache/cluster/store");
        let tp = pick.or("tp", low.tp, file.tp, 1);
        let http = pick.or(
            "http",
            low.http,
            file.http,
            SocketAddr::from(([127, 0, 0, 1], 8000)),
        );
        Ok(Config {
            models: parsed(pick.or(
                "model",
                listed(low.model),
                listed(file.model),
                vec![catalogue::DEFAULT.to_owned()],
            ))?,
            data_dir: pick.or_else("data_dir", low.data_dir, file.data_dir, data_dir)?,
            store: pick.or_else("store", low.store, file.store, store)?,
            store_max: pick.maybe("store_max", low.store_max, file.store_max),
            memory: pick.maybe("memory", low.memory, file.memory),
            quic: pick.or("quic", low.quic, file.quic, beside(http.value)),
            http,
            join: token(pick.maybe("join", low.join, file.join))?,
            tls_cert: pick.maybe("tls_cert", low.tls_cert, file.tls_cert),
            tls_key: pick.maybe("tls_key", low.tls_key, file.tls_key),
            connections_max: pick.or(
                "connections_max",
                low.connections_max,
                file.connections_max,
                CONNECTIONS_MAX,
            ),
            connections_per_address_max: pick.maybe(
                "connections_per_address_max",
                low.connections_per_address_max,
                file.connections_per_address_max,
            ),
            device: pick.or("device", low.device, file.device, Device::default()),
            threads: pick.or("threads", low.threads, file.threads, machine.cpus.max(tp.value)),
            tp,
            kv_cache: pick.or("kv_cache", low.kv_cache, file.kv_cache, KvCache::default()),
            cpu_level: pick.maybe("cpu_level", low.cpu_level, file.cpu_level),
            auth: pick.or(
                "no_auth",
                low.no_auth.map(auth),
                file.no_auth.map(auth),
                Auth::Keys,
            ),
            otlp_endpoint: pick.maybe("otlp_endpoint", low.otlp_endpoint, file.otlp_endpoint),
            log_format: pick.or(
                "log_format",
                low.log_format,
                file.log_format,
                LogFormat::default(),
            ),
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (tp, threads) = (self.tp.value, self.threads.value);
        if let Some(level) = &self.cpu_level.value {
            level.parse::<Level>().map_err(ConfigError::CpuLevel)?;
        }
        if tp == 0 {
            return Err(ConfigError::Zero("tp"));
        }
        if threads == 0 {
            return Err(ConfigError::Zero("threads"));
        }
        if threads > THREADS_MAX {
            return Err(ConfigError::TooManyThreads(threads));
        }
        if self.connections_max.value == 0 {
            return Err(ConfigError::Zero("connections-max"));
        }
        if self.connections_per_address_max.value == Some(0) {
            return Err(ConfigError::Zero("connections-per-address-max"));
        }
        if threads < tp {
            return Err(ConfigError::FewerThreadsThanRanks { tp, threads });
        }
        if self.auth.value == Auth::Open && !self.http.value.ip().is_loopback() {
            return Err(ConfigError::OpenToNetwork(self.http.value));
        }
        self.tls()?;
        self.check_names()
    }

    /// Certificate and key, where HTTPS is served.
    pub fn tls(&self) -> Result<Option<(&Path, &Path)>, ConfigError> {
        match (&self.tls_cert.value, &self.tls_key.value) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(ConfigError::HalfOfTls {
                given: "tls-cert",
                missing: "tls-key",
            }),
            (None, Some(_)) => Err(ConfigError::HalfOfTls {
                given: "tls-key",
                missing: "tls-cert",
            }),
        }
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        let mut names: Vec<&str> = self
            .models
            .value
            .iter()
            .map(|model| model.name.as_str())
            .collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ConfigError::TwiceNamed(pair[0].to_owned())),
            None => Ok(()),
        }
    }

    /// Every setting, with its value and where that came from.
    pub fn shown(&self) -> Vec<Shown> {
        let models: Vec<String> = self
            .models
            .value
            .iter()
            .map(|model| format!("{}={}", model.name, model.spec))
            .collect();
        let level = self.cpu_level.value.as_deref().unwrap_or("best");
        vec![
            Shown::new("model", listing(&models), self.models.origin),
            Shown::new("data_dir", self.data_dir.value.display(), self.data_dir.origin),
            Shown::new("store", self.store.value.display(), self.store.origin),
            Shown::new(
                "store_max",
                bound(self.store_max.value, "no bound"),
                self.store_max.origin,
            ),
            Shown::new(
                "memory",
                bound(self.memory.value, "what is free"),
                self.memory.origin,
            ),
            Shown::new("http", self.http.value, self.http.origin),
            Shown::new("quic", self.quic.value, self.quic.origin),
            Shown::new(
                "join",
                // A token is a secret.
                self.join.value.as_ref().map_or("none", |_| "a token"),
                self.join.origin,
            ),
            Shown::new("tls_cert", file_name(&self.tls_cert.value), self.tls_cert.origin),
            Shown::new("tls_key", file_name(&self.tls_key.value), self.tls_key.origin),
            Shown::new(
                "connections_max",
                self.connections_max.value,
                self.connections_max.origin,
            ),
            Shown::new(
                "connections_per_address_max",
                match self.connections_per_address_max.value {
                    Some(count) => count.to_string(),
                    None => format!("{CONNECTIONS_PER_ADDRESS_MAX}, loopback without"),
                },
                self.connections_per_address_max.origin,
            ),
            Shown::new(
                "device",
                format!("{:?}", self.device.value).to_lowercase(),
                self.device.origin,
            ),
            Shown::new("threads", self.threads.value, self.threads.origin),
            Shown::new("tp", self.tp.value, self.tp.origin),
            Shown::new("kv_cache", self.kv_cache.value.format(), self.kv_cache.origin),
            Shown::new("cpu_level", level, self.cpu_level.origin),
            Shown::new("no_auth", self.auth.value == Auth::Open, self.auth.origin),
            Shown::new(
                "otlp_endpoint",
                self.otlp_endpoint.value.as_deref().unwrap_or("none"),
                self.otlp_endpoint.origin,
            ),
            Shown::new(
                "log_format",
                format!("{:?}", self.log_format.value).to_lowercase(),
                self.log_format.origin,
            ),
        ]
    }
}

fn bound(bytes: Option<ByteSize>, without: &str) -> String {
    bytes.map_or(without.to_owned(), |bytes| bytes.to_string())
}

fn file_name(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Origin::Flag => "command line",
            Origin::Environment => "environment",
            Origin::File => "config file",
            Origin::Default => "default",
        })
    }
}

fn auth(no_auth: bool) -> Auth {
    if no_auth { Auth::Open } else { Auth::Keys }
}

fn listed(models: Vec<String>) -> Option<Vec<String>> {
    Some(models).filter(|models| !models.is_empty())
}

/// What `--model` says for a node that serves none itself.
const NO_MODEL: &str = "none";

fn parsed(models: Setting<Vec<String>>) -> Result<Setting<Vec<NamedSpec>>, ConfigError> {
    let value = match models.value.iter().any(|text| text == NO_MODEL) {
        true if models.value.len() > 1 => return Err(ConfigError::NoneAndOthers),
        true => Vec::new(),
        false => models
            .value
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, SpecError>>()?,
    };
    Ok(Setting {
        value,
        origin: models.origin,
    })
}

fn listing(models: &[String]) -> String {
    match models {
        [] => NO_MODEL.to_owned(),
        models => models.join(","),
    }
}

fn token(text: Setting<Option<String>>) -> Result<Setting<Option<JoinToken>>, ConfigError> {
    let value = text
        .value
        .map(|text| text.trim().parse::<JoinToken>().map_err(ConfigError::Token))
        .transpose()?;
    Ok(Setting {
        value,
        origin: text.origin,
    })
}

/// A free port stays a free one.
fn beside(http: SocketAddr) -> SocketAddr {
    let port = match http.port() {
        0 => 0,
        port => port.checked_add(1).unwrap_or(port - 1),
    };
    SocketAddr::new(http.ip(), port)
}

/// The order of precedence.
struct Pick<'a> {
    sources: &'a Sources<'a>,
}

impl Pick<'_> {
    fn or<T>(&self, id: &str, typed: Option<T>, file: Option<T>, default: T) -> Setting<T> {
        let setting = self.or_else(id, typed, file, || Ok(default));
        setting.expect("a default that is a value cannot fail")
    }

    /// A setting that may be left out.
    fn maybe<T>(&self, id: &str, typed: Option<T>, file: Option<T>) -> Setting<Option<T>> {
        self.or(id, typed.map(Some), file.map(Some), None)
    }

    fn or_else<T>(
        &self,
        id: &str,
        typed: Option<T>,
        file: Option<T>,
        default: impl FnOnce() -> Result<T, ConfigError>,
    ) -> Result<Setting<T>, ConfigError> {
        let (value, origin) = match (typed, file) {
            (Some(value), _) => (value, self.typed(id)),
            (None, Some(value)) => (value, Origin::File),
            (None, None) => (default()?, Origin::Default),
        };
        Ok(Setting { value, origin })
    }

    fn typed(&self, id: &str) -> Origin {
        match self.sources.typed(id) {
            Typed::Flag => Origin::Flag,
            Typed::Environment => Origin::Environment,
        }
    }
}

#[cfg(test)]
mod tests;
