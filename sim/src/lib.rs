//! A pretend world: a virtual clock drives the production `Router` and `Engine` against modelled devices, networks and
//! clients.
//!
//! Nothing here decides anything. The same scenario and seed give the same [`Report`], byte for byte: time is integer
//! nanoseconds, randomness is our own, nothing reads a host's clock or depends on hash order.
//!
//! Beside it stands the judge of what clients of real nodes were told: [`History`].
#![forbid(unsafe_code)]

mod history;
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

pub use gateway::AnyRouter;
pub use history::{Action, Answer, Deed, History, Invoked, is_linearizable};
pub use random::Random;
pub use report::{PromptReport, Quantiles, ReplicaReport, Report, TenantReport};
pub use scenario::{
    Arrivals, Class, Cluster, Crash, Device, EngineLimits, Lengths, Replay, Scenario, ScenarioError, Tenant,
};
pub use trace::TraceRow;

/// Plays the scenario until every request has ended, and says how it went.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    run_with(scenario, seed, || gateway::Gateway::production(&scenario.cluster))
}

/// The same with other routers than those of production, to compare them; each gateway gets its own.
pub fn run_with(scenario: &Scenario, seed: u64, router: impl FnMut() -> AnyRouter) -> Report {
    let gateways = scenario.cluster.gateways as usize;
    let routers = std::iter::repeat_with(router).take(gateways).collect();
    world::World::new(scenario, seed, routers).play()
}
