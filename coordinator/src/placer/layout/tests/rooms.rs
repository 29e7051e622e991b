//! How long steps may be, and what that takes.

use super::*;
use crate::engine::{PROMPT_STEP_MAX, STEP_ROOM_LEAST, STEP_TOKENS_MAX};

const ROW: RowBytes = RowBytes {
    each: 40 << 10,
    cut: 30 << 10,
    gathered: 50 << 10,
    collected: 0,
};

/// 80 MiB of weights in layers, and room to compute in that depends on how long steps are.
fn shape_with_rows() -> ModelShape {
    ModelShape {
        workspace: WorkspaceShape {
            row: ROW,
            logit_row: RowBytes {
                collected: 64 << 10,
                ..RowBytes::default()
            },
            logit_rows_max: 64,
        },
        position_bytes: 256,
        ..shape(vec![10 * MIB; 8])
    }
}

fn step_tokens_max(devices: &[Device]) -> u32 {
    laid(&shape_with_rows(), devices).room.step_tokens_max
}

#[test]
fn steps_may_be_twice_as_long_as_they_are_expected_to_be() {
    // 80 Mi weights with 128 rows at 1 G weights in a second.
    let slow = slower(device(1, 5000), 30);
    assert_eq!(step_tokens_max(std::slice::from_ref(&slow)), STEP_ROOM_LEAST);
    let fast = device(1, 5000);
    assert_eq!(step_tokens_max(std::slice::from_ref(&fast)), STEP_TOKENS_MAX);
    let between = slower(device(1, 5000), 200);
    let layout = laid(&shape_with_rows(), std::slice::from_ref(&between));
    let tokens = layout.room.step_tokens_max;
    assert!((STEP_ROOM_LEAST + 1..STEP_TOKENS_MAX).contains(&tokens) && tokens.is_multiple_of(16));
    let shape = shape_with_rows();
    let sizes = Sizes::new(&shape, 1);
    let step_ns =
        |tokens: u32| sizes.step_ns(&between, &(0..8), Work::prefill(0..u64::from(tokens), u64::MAX));
    assert!(step_ns(tokens) <= 2 * PROMPT_STEP_MAX.0, "{tokens}");
    assert!(step_ns(tokens + 16) > 2 * PROMPT_STEP_MAX.0, "{tokens}");
    let reasons = layout.reasons().join("\n");
    let words = format!("steps: room for {tokens} tokens; ");
    assert!(reasons.contains(&words), "{reasons}");
}

#[test]
fn what_steps_do_not_need_goes_to_the_cache() {
    let (fast, slow) = (device(1, 250), slower(device(1, 250), 30));
    let shape = shape_with_rows();
    let blocks = |device: Device| laid(&shape, &[device]).room.blocks;
    assert!(blocks(slow) > blocks(fast));
}

#[test]
fn a_tight_stage_shortens_the_steps_of_all_rather_than_keep_a_model_out() {
    let shape = shape_with_rows();
    let sizes = Sizes::new(&shape, 1);
    let least = sizes.memory_bytes(&(0..8), sizes.room_least()).div_ceil(MIB);
    let room = |mebibytes: u64| laid(&shape, &[device(1, mebibytes)]).room;
    assert_eq!(room(least), sizes.room_least());
    let more = room(least + 12);
    assert!((STEP_ROOM_LEAST + 1..STEP_TOKENS_MAX).contains(&more.step_tokens_max));
    assert_eq!(more.blocks, sizes.blocks_least());
}

#[test]
fn only_the_last_stage_has_room_for_logits_and_every_neighbour_brings_rows() {
    let shape = shape_with_rows();
    let sizes = Sizes::new(&shape, 1);
    let room = Room {
        blocks: 64,
        step_tokens_max: 100,
    };
    let bytes = |layers: Range<u32>| sizes.workspace_bytes(&layers, room);
    let row = 120 << 10;
    let positions = 64 * 16 * 256;
    let whole = 2 * MIB + 100 * row + positions + 64 * (64 << 10);
    assert_eq!(bytes(0..8), whole);
    assert_eq!(bytes(3..8), whole + 100 * sizes.row_bytes());
    assert_eq!(bytes(0..3), bytes(3..8) - 64 * (64 << 10));
    assert_eq!(bytes(3..5), bytes(0..3) + 100 * sizes.row_bytes());
    assert_eq!(
        sizes.memory_bytes_over(3),
        [0..3, 3..5, 5..8]
            .iter()
            .map(|layers| sizes.memory_bytes(layers, sizes.room_least()))
            .sum::<u64>()
    );
}

#[test]
fn ranks_share_what_is_cut_and_gather_by_way_of_a_copy() {
    assert_eq!(ROW.on(1), 120 << 10);
    assert_eq!(ROW.on(2), (2 * 40 + 30 + 5 * 50) << 10);
    assert_eq!(ROW.on(3), (3 * 40 + 30 + 7 * 50) << 10);
    let logits = RowBytes {
        collected: 10,
        ..RowBytes::default()
    };
    assert_eq!((logits.on(1), logits.on(2), logits.on(4)), (10, 20, 20));
}

#[test]
fn a_table_that_makes_logits_too_is_held_once_by_one_rank_alone() {
    let shape = ModelShape {
        tied_bytes: 12 * MIB,
        ..shape(vec![10 * MIB; 8])
    };
    let weights = |ranks: u32, layers: Range<u32>| Sizes::new(&shape, ranks).weight_bytes(&layers) / MIB;
    assert_eq!(weights(1, 0..8), 80 + 15);
    assert_eq!(weights(1, 0..4) + weights(1, 4..8), 80 + 12 + 15);
    assert_eq!(weights(2, 0..8), 80 + 2 * 12 + 15);
}
