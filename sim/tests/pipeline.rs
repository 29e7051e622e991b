//! Replicas of several stages, against arithmetic.

use coordinator::cost::{Backlog, StepCost};
use sim::{Report, Scenario, ScenarioError, run};

/// What every answer's length is, where many are computed side by side.
const OUTPUT_TOKENS: u32 = 400;
const SEQUENCES: u32 = 32;
/// Until all 32 decode, and after the first of them has ended, stages are idle: for the time of a few steps of so many.
const EDGES: f64 = 4.0 / OUTPUT_TOKENS as f64;

fn play(toml: &str) -> Report {
    let report = run(&Scenario::from_toml(toml).unwrap(), 1);
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!(report.all.completed, report.all.streams);
    report
}

/// One client after the other, 50 µs apart; then all are served side by side.
fn batch(clients: u32, device: &str, prompt_tokens: u32, output_tokens: u32) -> String {
    let arrivals_secs = (f64::from(clients) + 0.5) * 50e-6;
    format!(
        "arrivals_secs = {arrivals_secs}
        [cluster]
        network_us = 0.0
        network_jitter_us = 0.0
        [device]
        {device}
        [[tenant]]
        name = 'even'
        arrivals = 'even'
        requests_per_sec = 20000.0
        prompt_tokens = {prompt_tokens}
        output_tokens = {output_tokens}"
    )
}

/// Steps of 10 ms, whatever they compute.
fn device(stages: u32, more: &str) -> String {
    format!("fixed_us = 10000.0\nper_token_us = 0.0\nstages = {stages}\n{more}")
}

fn many(device: &str) -> Report {
    let report = play(&batch(SEQUENCES, device, 1, OUTPUT_TOKENS));
    assert_eq!(report.all.streams, u64::from(SEQUENCES));
    report
}

/// From a client's arrival to the last token of its answer, on average.
fn answered_after_secs(report: &Report) -> f64 {
    let gaps = f64::from(OUTPUT_TOKENS - 1);
    (report.all.ttft_ms.mean + report.all.tpot_ms.mean * gaps) * 1e-3
}

fn assert_close(measured: f64, theory: f64, tolerance: f64) {
    let error = (measured - theory).abs();
    assert!(
        error <= tolerance,
        "{measured}, theory says {theory} ± {tolerance}"
    );
}

/// With as many equal plans under way as there are equal stages, every stage always has one. A sequence's next token
/// comes when its plan has visited all stages: as often as without stages, but for each of as many plans.
#[test]
fn equal_stages_with_many_sequences_are_never_idle() {
    for stages in [1, 2, 4] {
        let report = many(&device(stages, ""));
        assert_close(report.replicas[0].bubble, 0.0, EDGES);
        assert_close(report.all.tpot_ms.p50, 10.0, 10.0 * EDGES);
        let steps = u64::from(stages * OUTPUT_TOKENS);
        assert_close(report.replicas[0].steps as f64 / steps as f64, 1.0, EDGES);
    }
}

#[test]
fn one_sequence_keeps_one_stage_busy_at_a_time() {
    for stages in [1, 2, 5] {
        let report = play(&batch(1, &device(stages, ""), 1, 50));
        assert_close(report.replicas[0].bubble, 1.0 - 1.0 / f64::from(stages), 1e-6);
        assert_close(report.all.tpot_ms.mean, 10.0, 1e-3);
    }
}

#[test]
fn one_sequence_waits_for_every_hop_of_its_round() {
    let report = play(&batch(1, &device(4, "hop_us = 500.0"), 1, 50));
    // 10 ms in all stages, half a millisecond to each.
    assert_close(report.all.tpot_ms.mean, 12.0, 1e-3);
    assert_close(report.replicas[0].bubble, 1.0 - 10.0 / (4.0 * 12.0), 1e-6);
    assert_close(report.replicas[0].bubble_between, 2.0 / 12.0, 1e-6);
}

/// Stages that take 2/3 and 1/3 of a step: the slow one is always busy, so a plan leaves every 2/3 steps, and one that
/// takes turns with one other every 4/3 steps. The fast stage is idle half of the time, a quarter of all.
#[test]
fn the_slowest_stage_bounds_what_all_do() {
    for shares in ["[2.0, 1.0]", "[1.0, 2.0]"] {
        let report = many(&device(2, &format!("stage_shares = {shares}")));
        let tpot_ms = 10.0 * 4.0 / 3.0;
        assert_close(report.all.tpot_ms.p50, tpot_ms, tpot_ms * EDGES);
        assert_close(report.replicas[0].bubble, 0.25, EDGES);
        assert_close(report.replicas[0].bubble_between, 0.0, 1e-9);
        let all_ms = tpot_ms * f64::from(OUTPUT_TOKENS);
        assert_close(answered_after_secs(&report) / (all_ms * 1e-3), 1.0, EDGES);
    }
}

/// S slices, each of which takes f + t · n/S in all stages together and follows the one before it a stage behind: the
/// last has passed all stages after (2 S - 1) / S of that.
#[test]
fn one_long_prompt_is_computed_by_all_stages_at_once() {
    for stages in [1, 2, 4] {
        let device = format!("fixed_us = 2000.0\nper_token_us = 1000.0\nstages = {stages}");
        let report = play(&batch(1, &device, 200, 1));
        let stages = f64::from(stages);
        let slice_ms = 2.0 + 200.0 / stages;
        let theory_ms = slice_ms * (2.0 * stages - 1.0) / stages;
        assert_close(report.all.ttft_ms.mean, theory_ms, 1e-3);
    }
}

/// What an engine tells of its cost, and routers forecast with.
#[test]
fn the_forecast_with_marginal_costs_divided_by_the_stages_is_what_they_take() {
    for stages in [1, 2, 4] {
        let report = many(&format!(
            "fixed_us = 4000.0\nper_token_us = 250.0\nstages = {stages}"
        ));
        let told = StepCost {
            fixed_secs: 4e-3,
            per_token_secs: 250e-6 / f64::from(stages),
            per_context_secs: 0.0,
        };
        let backlog = Backlog {
            prompt_tokens: u64::from(SEQUENCES),
            sequences: SEQUENCES,
            output_tokens_each: OUTPUT_TOKENS,
            batch: SEQUENCES,
        };
        let forecast_secs = told.drain(backlog).as_secs_f64();
        assert_close(answered_after_secs(&report) / forecast_secs, 1.0, EDGES);
    }
}

#[test]
fn when_replicas_of_several_stages_crash_every_stream_goes_on() {
    let crash = include_str!("../scenarios/crash.toml");
    let staged = crash.replace(
        "noise_percent = 20.0",
        "noise_percent = 20.0\nstages = 3\nstage_shares = [1.0, 1.2, 0.9]\nhop_us = 200.0",
    );
    assert_ne!(staged, crash);
    let report = play(&staged);
    assert_eq!(report.to_json(), play(&staged).to_json());
}

#[test]
fn mistakes_about_stages_are_named() {
    let wrong = |more: &str| {
        let toml = batch(1, &device(2, more), 1, 1);
        let Err(ScenarioError::Value { key, .. }) = Scenario::from_toml(&toml) else {
            panic!("{more} was taken")
        };
        key
    };
    assert_eq!(wrong("stage_shares = [1.0]"), "device.stage_shares");
    assert_eq!(wrong("stage_shares = [1.0, 0.0]"), "device.stage_shares");
    assert_eq!(wrong("hop_us = -1.0"), "device.hop_us");
    let none = batch(1, &device(0, ""), 1, 1);
    let message = Scenario::from_toml(&none).unwrap_err().to_string();
    assert_eq!(message, "`device.stages` is 0; it must be from 1 to 1000");
}
