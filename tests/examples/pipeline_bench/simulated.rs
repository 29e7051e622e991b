//! The same work in the simulator, by what the engine has found a step to cost.

use crate::case::Case;
use crate::placed::Placed;
use serde_json::Value;
use tests::{TempFolder, run_to_end};

/// Requests come one after the other so fast that all are there before the first step ends.
const REQUESTS_PER_SEC: f64 = 20_000.0;

/// The part of the stages' time without work, while there is some, where each has its share of every step.
pub fn bubble(case: &Case, placed: &Placed, shares: &[f64]) -> f64 {
    let folder = TempFolder::new();
    let scenario = folder.path().join("scenario.toml");
    std::fs::write(&scenario, toml(case, placed, shares)).expect("a scenario");
    let scenario = scenario.to_str().expect("a readable path");
    let output = run_to_end(&["sim", "run", scenario, "--json", "-"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["all"]["completed"], case.streams, "{report}");
    report["replicas"][0]["bubble"].as_f64().expect("a number")
}

fn toml(case: &Case, placed: &Placed, shares: &[f64]) -> String {
    let stages = shares.len() as f64;
    let cost = |part: &str| placed.metric(&format!("cluster_step_{part}_seconds"));
    // Marginal costs are told as those of all stages at work.
    let (fixed_us, per_token_us) = (cost("fixed") * 1e6, cost("per_token") * stages * 1e6);
    let blocks = placed.placement()["blocks"].as_u64().expect("a number");
    format!(
        "arrivals_secs = {}
        [cluster]
        network_us = 0.0
        network_jitter_us = 0.0
        [engine]
        blocks = {blocks}
        [device]
        fixed_us = {fixed_us:.1}
        per_token_us = {per_token_us:.1}
        stages = {stages}
        stage_shares = {shares:?}
        hop_us = 100.0
        [[tenant]]
        name = 'all'
        arrivals = 'even'
        requests_per_sec = {REQUESTS_PER_SEC:.1}
        prompt_tokens = {}
        output_tokens = {}",
        (f64::from(case.streams) + 0.5) / REQUESTS_PER_SEC,
        case.prompt_tokens,
        case.output_tokens
    )
}
