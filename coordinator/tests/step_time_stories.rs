//! How long steps are while somebody reads along. Blocks hold 4 tokens.

mod shell;

use coordinator::cost::StepCost;
use coordinator::engine::EngineConfig;
use proto::Span;
use proto::step::Verdict;
use shell::{Shell, ask, config, shape};

#[test]
fn while_others_decode_a_chunk_is_cut_to_keep_the_time_between_tokens() {
    let slow = StepCost {
        fixed_secs: 0.0,
        per_token_secs: 1e-3,
        per_context_secs: 0.0,
    };
    let tiles = EngineConfig {
        step_tokens_max: 400,
        context_tokens_max: 1000,
        rows_at_once: 16,
        cost_measured: Some(slow),
        between_tokens_max: Span::from_micros(40_500),
        prompt_step_max: Span::from_micros(300_500),
        ..config(400)
    };
    let rows = EngineConfig {
        rows_at_once: 1,
        ..tiles.clone()
    };
    let first_chunk = |config: &EngineConfig| {
        let mut shell = Shell::new(config.clone());
        shell.submit(ask(1, 900, 5));
        shape(&shell, 0)
    };
    assert_eq!(
        first_chunk(&tiles),
        [(0, 0, 304)],
        "alone it may take long steps, of 16 rows at a time"
    );
    assert_eq!(first_chunk(&rows), [(0, 0, 296)]);
    assert_eq!(
        chunk_beside_a_stream(tiles, slow),
        31,
        "with the other's row two tiles are full, and a third would take too long"
    );
    assert_eq!(chunk_beside_a_stream(rows, slow), 39, "each row has its own time");
}

#[test]
fn where_decoding_takes_longer_than_was_promised_prompts_get_as_much_time() {
    let slow_to_start = StepCost {
        fixed_secs: 99.5e-3,
        per_token_secs: 1e-3,
        per_context_secs: 0.0,
    };
    let config = EngineConfig {
        step_tokens_max: 400,
        context_tokens_max: 1000,
        rows_at_once: 16,
        cost_measured: Some(slow_to_start),
        between_tokens_max: Span::from_millis(40),
        ..config(400)
    };
    assert_eq!(
        chunk_beside_a_stream(config, slow_to_start),
        95,
        "of the 100 that take as long, those that fill tiles"
    );
}

/// How much of a long prompt is computed with the second token of a stream.
fn chunk_beside_a_stream(config: EngineConfig, cost: StepCost) -> u32 {
    let mut shell = Shell::new(config);
    shell.cost = cost;
    shell.submit(ask(2, 10, 50));
    shell.step(Verdict::Continue);
    shell.submit(ask(1, 900, 5));
    shell.step(Verdict::Continue);
    let plan = shape(&shell, 2);
    assert_eq!(plan.len(), 2);
    plan[1].2
}
