//! Recorded prompts on two replicas: how much is computed that one cache without end would have spared.

use crate::rival::{Rival, Rule};
use sim::{Report, Scenario, ScenarioError, run, run_with};

const SYNTHETIC: &str = include_str!("../../scenarios/mooncake_synthetic.toml");
const CONVERSATION: &str = include_str!("../../scenarios/mooncake_conversation.toml");

fn scenario(toml: &str) -> Scenario {
    let read = |file: &str| -> Result<String, ScenarioError> {
        let text = match file {
            "../data/mooncake/synthetic.trace" => include_str!("../../data/mooncake/synthetic.trace"),
            _ => include_str!("../../data/mooncake/conversation.trace"),
        };
        Ok(text.to_owned())
    };
    Scenario::with_traces(toml, read).unwrap()
}

/// Prompt tokens computed, against one cache without end.
fn recomputed(report: &Report) -> f64 {
    report.prompts.computed_tokens as f64 / report.prompts.least_tokens as f64
}

/// Everything is served, and a line of the table is printed.
fn checked(name: &str, report: Report) -> Report {
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!(
        report.all.completed, report.all.streams,
        "{name}: {:?}",
        report.all
    );
    println!(
        "{name:>12}: {:.3} times the tokens of one cache without end, TTFT p50 {:.0} ms p95 {:.0} ms, busy {:?}",
        recomputed(&report),
        report.all.ttft_ms.p50,
        report.all.ttft_ms.p95,
        report
            .replicas
            .iter()
            .map(|replica| (replica.busy * 100.0).round())
            .collect::<Vec<_>>(),
    );
    report
}

struct Table {
    production: Report,
    round_robin: Report,
    least_loaded: Report,
    first_block: Report,
}

fn table(toml: &str) -> Table {
    let scenario = scenario(toml);
    let rival = |rule| {
        let report = run_with(&scenario, 1, || Box::new(Rival::new(rule)));
        checked(&format!("{rule:?}"), report)
    };
    Table {
        production: checked("production", run(&scenario, 1)),
        round_robin: rival(Rule::RoundRobin),
        least_loaded: rival(Rule::LeastLoaded),
        first_block: rival(Rule::FirstBlock),
    }
}

#[test]
fn two_replicas_compute_little_more_than_one_cache_without_end() {
    let table = table(SYNTHETIC);
    let ours = recomputed(&table.production);
    assert!(ours <= 1.3, "{ours}");
    assert!(ours < recomputed(&table.round_robin) && ours < recomputed(&table.least_loaded));
    // Nothing is common to all here: hashing the first block is right, too.
    assert!(ours < recomputed(&table.first_block) * 1.05);
    assert!(table.production.all.ttft_ms.p50 < table.first_block.all.ttft_ms.p50);
}

#[test]
fn a_block_that_all_prompts_share_does_not_draw_them_to_one_replica() {
    let table = table(CONVERSATION);
    let ours = recomputed(&table.production);
    assert!(ours <= 1.3, "{ours}");
    for rival in [&table.round_robin, &table.least_loaded, &table.first_block] {
        assert!(ours < recomputed(rival));
        assert!(table.production.all.ttft_ms.p50 < rival.all.ttft_ms.p50);
    }
    let busy = |report: &Report| report.replicas[0].busy / report.replicas[1].busy;
    assert!(
        (0.8..1.25).contains(&busy(&table.production)),
        "{:?}",
        table.production.replicas
    );
    assert!(
        !(0.5..2.0).contains(&busy(&table.first_block)),
        "the trap is there: {:?}",
        table.first_block.replicas
    );
}

#[test]
fn what_is_recorded_is_played_again_in_the_same_way() {
    let scenario = scenario(&SYNTHETIC.replace("600.0", "20.0"));
    assert_eq!(run(&scenario, 1).to_json(), run(&scenario, 1).to_json());
}

#[test]
fn a_trace_that_is_not_there_and_one_that_is_damaged_are_named() {
    let missing = Scenario::from_toml(SYNTHETIC).unwrap_err().to_string();
    assert!(missing.contains("../data/mooncake/synthetic.trace"), "{missing}");
    let damaged = Scenario::with_traces(SYNTHETIC, |_| Ok::<_, ScenarioError>("0 1".to_owned()));
    assert!(matches!(damaged, Err(ScenarioError::Trace { line: 1, .. })));
}
