//! Whole plays: queueing theory, determinism, losses.

use sim::{Report, Scenario, ScenarioError, run};

const CHAT: &str = include_str!("../scenarios/chat.toml");
const CRASH: &str = include_str!("../scenarios/crash.toml");

fn play(toml: &str, seed: u64) -> Report {
    let report = run(&Scenario::from_toml(toml).unwrap(), seed);
    assert_eq!(report.violations, Vec::<String>::new());
    report
}

/// One server that takes one request at a time, and always as long: every request is one step of 10 ms.
fn one_server(requests_per_sec: f64) -> String {
    format!(
        "arrivals_secs = 600.0
        [cluster]
        network_us = 0.0
        network_jitter_us = 0.0
        credits = 10000
        streams_max = 10000
        streams_per_tenant_max = 10000
        [engine]
        blocks = 4
        sequences_max = 1
        waiting_max = 10000
        [device]
        fixed_us = 10000.0
        per_token_us = 0.0
        [[tenant]]
        name = 'poisson'
        requests_per_sec = {requests_per_sec}
        prompt_tokens = 1
        output_tokens = 1"
    )
}

#[test]
fn waiting_agrees_with_queueing_theory() {
    for load in [0.4, 0.7] {
        let report = play(&one_server(load * 100.0), 7);
        // M/D/1, Pollaczek-Khinchine: the mean wait is load / (2 (1 - load)) service times.
        let predicted_ms = 10.0 * (1.0 + load / (2.0 * (1.0 - load)));
        let measured_ms = report.all.ttft_ms.mean;
        let error = measured_ms / predicted_ms - 1.0;
        assert!(
            error.abs() < 0.03,
            "load {load}: {measured_ms} ms, theory says {predicted_ms} ms"
        );
        assert!(
            (report.replicas[0].busy - load).abs() < 0.02,
            "{:?}",
            report.replicas
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_gives_others() {
    let json = play(CRASH, 3).to_json();
    assert_eq!(json, play(CRASH, 3).to_json());
    assert_ne!(json, play(CRASH, 4).to_json());
}

#[test]
fn when_replicas_crash_every_stream_goes_on_and_none_is_lost() {
    for seed in 0..3 {
        let report = play(CRASH, seed);
        assert_eq!(
            report.all.completed, report.all.streams,
            "seed {seed}: {:?}",
            report.all
        );
    }
}

#[test]
fn when_the_last_replica_stays_away_streams_are_given_up_and_not_forgotten() {
    let toml = CRASH
        .replace("replicas = 3", "replicas = 1")
        .replace("replica = 1\n", "replica = 0\n");
    let dead = toml
        .replace("back_after_secs = 5.0", "")
        .replace("back_after_secs = 0.1", "");
    let report = play(&dead, 1);
    assert!(
        report.all.abandoned > 0 && report.all.refused > 0,
        "{:?}",
        report.all
    );
    let ended = report.all.completed + report.all.abandoned + report.all.refused;
    assert_eq!(ended, report.all.streams);
}

#[test]
fn people_who_chat_hardly_notice_the_batch_job() {
    let with = play(CHAT, 1);
    let alone = play(CHAT.split("[[tenant]]\nname = \"batch\"").next().unwrap(), 1);
    let (with, alone) = (with.tenants[0].ttft_ms, alone.tenants[0].ttft_ms);
    assert!(with.p50 < alone.p50 * 2.0, "{with:?} and alone {alone:?}");
}

#[test]
fn a_shared_system_prompt_is_mostly_served_from_the_cache() {
    let report = play(CHAT, 1);
    let replica = &report.replicas[0];
    assert!(
        replica.prefix_hit_tokens * 2 > replica.prefix_queried_tokens,
        "{replica:?}"
    );
}

#[test]
fn the_time_between_tokens_is_kept_while_prompts_are_computed() {
    let report = play(CHAT, 1);
    // The target is 50 ms a step; batching and noise may exceed it a little.
    assert!(report.all.tpot_ms.p95 < 65.0, "{:?}", report.all.tpot_ms);
}

#[test]
fn too_much_load_is_refused_and_what_is_taken_is_served() {
    let toml = one_server(200.0)
        .replace("waiting_max = 10000", "waiting_max = 20")
        .replace(
            "streams_max = 10000\n        streams_per_tenant_max = 10000",
            "streams_max = 20\n        streams_per_tenant_max = 20",
        );
    let report = play(&toml.replace("600.0", "100.0"), 1);
    assert!(report.all.refused > report.all.streams / 3, "{:?}", report.all);
    assert_eq!(report.all.completed + report.all.refused, report.all.streams);
    assert!(report.all.ttft_ms.max <= 201.0, "{:?}", report.all.ttft_ms);
}

#[test]
fn mistakes_in_a_scenario_are_named() {
    let unknown = CHAT.replace("blocks = 1024", "blokcs = 1024");
    assert!(matches!(
        Scenario::from_toml(&unknown),
        Err(ScenarioError::Syntax(_))
    ));
    let wrong = CHAT.replace("fixed_us = 6000.0", "fixed_us = 0.0");
    let message = Scenario::from_toml(&wrong).unwrap_err().to_string();
    assert_eq!(message, "`device.fixed_us` is 0; it must be more than 0");
    let nowhere = CRASH.replace("replica = 0", "replica = 3");
    assert!(matches!(
        Scenario::from_toml(&nowhere),
        Err(ScenarioError::Value {
            key: "crash.replica",
            ..
        })
    ));
}
