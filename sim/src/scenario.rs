//! What is played: a TOML file.

use crate::trace::{TraceRow, rows};
use proto::request::ServiceClass;
use proto::{Span, Time};
use serde::Deserialize;
use std::ops::RangeInclusive;

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// New requests come for this long; then what is there is finished.
    pub arrivals_secs: f64,
    #[serde(default)]
    pub cluster: Cluster,
    #[serde(default)]
    pub engine: EngineLimits,
    pub device: Device,
    #[serde(default, rename = "tenant")]
    pub tenants: Vec<Tenant>,
    #[serde(default, rename = "replay")]
    pub replays: Vec<Replay>,
    #[serde(default, rename = "crash")]
    pub crashes: Vec<Crash>,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    pub gateways: u32,
    pub replicas: u32,
    /// One way, gateway to replica.
    pub network_us: f64,
    /// Up to this much more, different for every message.
    pub network_jitter_us: f64,
    /// From a crash until gateways know.
    pub detection_ms: f64,
    pub streams_max: u32,
    pub streams_per_tenant_max: u32,
    /// Unanswered submits of one gateway at one replica.
    pub credits: u32,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            gateways: 1,
            replicas: 1,
            network_us: 100.0,
            network_jitter_us: 50.0,
            detection_ms: 350.0,
            streams_max: 1024,
            streams_per_tenant_max: 512,
            credits: 128,
        }
    }
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub struct EngineLimits {
    pub block_tokens: u32,
    pub blocks: u32,
    pub context_tokens_max: u32,
    /// Of one stage; a pipeline runs so many for each.
    pub sequences_max: u32,
    pub waiting_max: u32,
    pub step_tokens_max: u32,
    pub between_tokens_ms: f64,
    pub prompt_step_ms: f64,
}

impl Default for EngineLimits {
    fn default() -> Self {
        EngineLimits {
            block_tokens: 16,
            blocks: 2048,
            context_tokens_max: 8192,
            sequences_max: 64,
            waiting_max: 256,
            step_tokens_max: 512,
            between_tokens_ms: 50.0,
            prompt_step_ms: 250.0,
        }
    }
}

/// How long a step really takes: the cost model's coefficients, and a spread that it cannot explain.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub fixed_us: f64,
    pub per_token_us: f64,
    #[serde(default)]
    pub per_context_ns: f64,
    /// Every step is up to this much faster or slower.
    #[serde(default)]
    pub noise_percent: f64,
    /// The model's layers are cut into so many stages, one after the other on devices of their own. What a step takes is
    /// the time of all of them together.
    #[serde(default = "one")]
    pub stages: u32,
    /// How a step's time is divided among the stages, in any unit. Left out: equally.
    #[serde(default)]
    pub stage_shares: Vec<f64>,
    /// With several stages: from one to the next, and of a plan from the last to the first.
    #[serde(default)]
    pub hop_us: f64,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    pub name: String,
    pub requests_per_sec: f64,
    #[serde(default)]
    pub arrivals: Arrivals,
    #[serde(default)]
    pub class: Class,
    pub prompt_tokens: Lengths,
    /// How long answers become by themselves.
    pub output_tokens: Lengths,
    /// What clients allow; longer answers are cut.
    #[serde(default = "unlimited")]
    pub max_new_tokens: u32,
    #[serde(default = "one")]
    pub choices: u32,
    /// Leading tokens of every prompt that come from one of `prefixes` texts.
    #[serde(default)]
    pub shared_prefix_tokens: u32,
    #[serde(default = "one")]
    pub prefixes: u32,
    /// The part of clients that goes away before the end, after a random time of up to `patience_secs`.
    #[serde(default)]
    pub impatient_percent: f64,
    #[serde(default)]
    pub patience_secs: f64,
}

/// A tenant whose requests were recorded.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    pub name: String,
    /// The file, seen from the scenario's own folder.
    pub trace: String,
    /// Prompt tokens in a block of the trace. One block becomes one of the engine's, and all lengths shrink alike.
    pub block_tokens: u32,
    /// So many times as fast as it was.
    #[serde(default = "one_time")]
    pub speed: f64,
    #[serde(skip)]
    pub rows: Vec<TraceRow>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    #[default]
    Poisson,
    /// Equally spaced.
    Even,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Priority,
    #[default]
    Default,
    Flex,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(untagged)]
pub enum Lengths {
    Fixed(u32),
    Uniform { min: u32, max: u32 },
    Exponential { mean: u32, max: u32 },
}

/// A replica loses everything.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Crash {
    pub replica: u32,
    pub at_secs: f64,
    /// It serves again, empty, this long after. Left out: never.
    pub back_after_secs: Option<f64>,
}

#[derive(thiserror::Error, Debug)]
pub enum ScenarioError {
    #[error("the scenario is not valid TOML, or has a wrong or missing key: {0}")]
    Syntax(#[from] toml::de::Error),
    #[error("`{key}` is {value}; it must be {must}")]
    Value {
        key: &'static str,
        value: String,
        must: &'static str,
    },
    #[error("the trace {file}, line {line}: {what}")]
    Trace {
        file: String,
        line: usize,
        what: &'static str,
    },
    #[error("the scenario replays {file}, and nothing was given to read it with")]
    NoTrace { file: String },
}

impl Scenario {
    /// A scenario that replays nothing.
    pub fn from_toml(text: &str) -> Result<Scenario, ScenarioError> {
        let nothing = |file: &str| {
            Err(ScenarioError::NoTrace {
                file: file.to_owned(),
            })
        };
        Scenario::with_traces(text, nothing)
    }

    /// `read` gives the text of a trace, by the name that the scenario has for it.
    pub fn with_traces<E: From<ScenarioError>>(
        text: &str,
        mut read: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Scenario, E> {
        let mut scenario: Scenario = toml::from_str(text).map_err(ScenarioError::from)?;
        for replay in &mut scenario.replays {
            replay.rows = rows(&replay.trace, &read(&replay.trace)?)?;
        }
        scenario.validate()?;
        Ok(scenario)
    }

    /// In the order of their numbers.
    pub(crate) fn tenant_names(&self) -> impl Iterator<Item = &str> {
        let drawn = self.tenants.iter().map(|tenant| tenant.name.as_str());
        drawn.chain(self.replays.iter().map(|replay| replay.name.as_str()))
    }

    fn validate(&self) -> Result<(), ScenarioError> {
        positive("arrivals_secs", self.arrivals_secs)?;
        self.cluster.validate()?;
        self.engine.validate()?;
        self.device.validate()?;
        self.tenants.iter().try_for_each(Tenant::validate)?;
        self.replays.iter().try_for_each(Replay::validate)?;
        self.crashes
            .iter()
            .try_for_each(|crash| crash.validate(self.cluster.replicas))
    }
}

impl Cluster {
    fn validate(&self) -> Result<(), ScenarioError> {
        at_least("cluster.gateways", self.gateways, 1)?;
        at_least("cluster.replicas", self.replicas, 1)?;
        at_least("cluster.credits", self.credits, 1)?;
        not_negative("cluster.network_us", self.network_us)?;
        not_negative("cluster.network_jitter_us", self.network_jitter_us)?;
        not_negative("cluster.detection_ms", self.detection_ms)
    }
}

impl EngineLimits {
    fn validate(&self) -> Result<(), ScenarioError> {
        at_least("engine.block_tokens", self.block_tokens, 1)?;
        at_least("engine.blocks", self.blocks, 1)?;
        at_least("engine.context_tokens_max", self.context_tokens_max, 1)?;
        at_least("engine.sequences_max", self.sequences_max, 1)?;
        at_least("engine.step_tokens_max", self.step_tokens_max, self.sequences_max)?;
        positive("engine.between_tokens_ms", self.between_tokens_ms)?;
        positive("engine.prompt_step_ms", self.prompt_step_ms)
    }
}

impl Device {
    fn validate(&self) -> Result<(), ScenarioError> {
        positive("device.fixed_us", self.fixed_us)?;
        not_negative("device.per_token_us", self.per_token_us)?;
        not_negative("device.per_context_ns", self.per_context_ns)?;
        percent("device.noise_percent", self.noise_percent)?;
        not_negative("device.hop_us", self.hop_us)?;
        let stages = self.stages;
        check(
            "device.stages",
            stages,
            STAGES.contains(&stages),
            "from 1 to 1000",
        )?;
        let shares = self.stage_shares.len();
        check(
            "device.stage_shares",
            format!("a list of {shares}"),
            shares == 0 || shares == stages as usize,
            "left out, or a list of as many numbers as there are stages",
        )?;
        self.stage_shares
            .iter()
            .try_for_each(|share| positive("device.stage_shares", *share))
    }
}

impl Tenant {
    fn validate(&self) -> Result<(), ScenarioError> {
        positive("tenant.requests_per_sec", self.requests_per_sec)?;
        at_least("tenant.choices", self.choices, 1)?;
        at_least("tenant.prefixes", self.prefixes, 1)?;
        percent("tenant.impatient_percent", self.impatient_percent)?;
        not_negative("tenant.patience_secs", self.patience_secs)
    }
}

impl Replay {
    fn validate(&self) -> Result<(), ScenarioError> {
        at_least("replay.block_tokens", self.block_tokens, 1)?;
        positive("replay.speed", self.speed)
    }
}

impl Crash {
    fn validate(&self, replicas: u32) -> Result<(), ScenarioError> {
        not_negative("crash.at_secs", self.at_secs)?;
        not_negative("crash.back_after_secs", self.back_after_secs.unwrap_or(0.0))?;
        let is_known = self.replica < replicas;
        check(
            "crash.replica",
            self.replica,
            is_known,
            "the number of a replica, counted from 0",
        )
    }
}

impl From<Class> for ServiceClass {
    fn from(class: Class) -> ServiceClass {
        match class {
            Class::Priority => ServiceClass::Priority,
            Class::Default => ServiceClass::Default,
            Class::Flex => ServiceClass::Flex,
        }
    }
}

pub(crate) fn secs(secs: f64) -> Span {
    Span::from_secs_f64(secs)
}

pub(crate) fn at(after_secs: f64) -> Time {
    Time::ZERO + secs(after_secs)
}

fn one() -> u32 {
    1
}

fn one_time() -> f64 {
    1.0
}

fn unlimited() -> u32 {
    u32::MAX
}

/// More than any model has layers.
const STAGES: RangeInclusive<u32> = 1..=1000;

/// A year in any of the units used here: large enough for every scenario, small enough for nanoseconds.
const MOST: f64 = 3.2e13;

fn positive(key: &'static str, value: f64) -> Result<(), ScenarioError> {
    check(key, value, value > 0.0 && value < MOST, "more than 0")
}

fn not_negative(key: &'static str, value: f64) -> Result<(), ScenarioError> {
    check(key, value, (0.0..MOST).contains(&value), "0 or more")
}

fn percent(key: &'static str, value: f64) -> Result<(), ScenarioError> {
    check(key, value, (0.0..=100.0).contains(&value), "from 0 to 100")
}

fn at_least(key: &'static str, value: u32, least: u32) -> Result<(), ScenarioError> {
    check(
        key,
        value,
        value >= least,
        "at least 1, and step_tokens_max at least sequences_max",
    )
}

fn check(
    key: &'static str,
    value: impl ToString,
    is_right: bool,
    must: &'static str,
) -> Result<(), ScenarioError> {
    if is_right {
        Ok(())
    } else {
        Err(ScenarioError::Value {
            key,
            value: value.to_string(),
            must,
        })
    }
}
