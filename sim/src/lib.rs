//! A pretend world: a virtual clock drives the production `Router` and `Engine` against modelled devices, networks and
//! clients.
//!
//! Nothing here decides anything. The same scenario and seed give the same [`Report`], byte for byte: time is integer
//! nanoseconds, randomness is our own, nothing reads a host's clock or depends on hash order.
#![forbid(unsafe_code)]

mod scenario;
mod world;

mod checkers;
mod device;
mod gateway;
mod network;
mod random;
mod replica;
mod report;
mod trace;
mod workload;

pub use report::{PromptReport, Quantiles, ReplicaReport, Report, TenantReport};
pub use scenario::{
    Arrivals, Class, Cluster, Crash, Device, EngineLimits, Lengths, Replay, Scenario, ScenarioError, Tenant,
};
pub use trace::TraceRow;
pub use workload::{Request, prompt_tokens_least, requests};

/// Plays the scenario until every request has ended, and says how it went.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    world::World::new(scenario, seed).play()
}
