//! What the sequence table tells ranks and engine, without any rank.

mod common;

use common::{BLOCK_TOKENS, greedy, prompt, submit};
use proto::request::Sampling;
use proto::step::{Slice, SliceOutput, StepPlan, Verdict};
use proto::{AdapterId, BlockHash, BlockId, GroupId, Position, SequenceId, Span};
use shard::sample::SampledToken;
use shard::{PASS_ROWS_MAX, Purpose, SequenceTable, StepInput, StepOutput};

const SEQUENCE: SequenceId = SequenceId(4);

fn slice(start: u32, count: u32, blocks: &[u32], output: SliceOutput) -> StepPlan {
    let slice = Slice {
        sequence: SEQUENCE,
        adapter: AdapterId(0),
        start,
        count,
        new_blocks: blocks.iter().map(|block| (GroupId(0), BlockId(*block))).collect(),
        output,
    };
    StepPlan {
        slices: vec![slice],
        ..StepPlan::default()
    }
}

fn sampled(id: u32, verdict: Verdict) -> StepOutput {
    let token = SampledToken {
        id,
        score: None,
        verdict,
    };
    StepOutput {
        sampled: vec![(SEQUENCE, token)],
        ..StepOutput::default()
    }
}

fn table(prompt: &[u32], sampling: &Sampling) -> SequenceTable {
    let mut table = SequenceTable::new(BLOCK_TOKENS, PASS_ROWS_MAX);
    table.admit(SEQUENCE, submit(prompt, sampling), None);
    table
}

fn position(input: &StepInput) -> Option<Position> {
    let purposes = input
        .passes
        .iter()
        .flat_map(|pass| &pass.logits)
        .map(|row| &row.purpose);
    purposes.into_iter().find_map(|purpose| match purpose {
        Purpose::Sample(request) => Some(request.position),
        Purpose::Score { .. } => None,
    })
}

#[test]
fn blocks_that_generation_fills_are_named_like_those_of_a_prompt() {
    let mut tokens = prompt(1, 20);
    let mut table = table(&tokens, &greedy());
    let mut sealed = Vec::new();
    let mut plan = slice(0, 20, &[7, 3], SliceOutput::Sample);
    for id in 0..40 {
        table.input(&plan);
        sealed.extend(
            table
                .record(&plan, &sampled(id, Verdict::Continue), Span::ZERO)
                .sealed,
        );
        let known = tokens.len() as u32;
        tokens.push(id);
        let block = known
            .is_multiple_of(BLOCK_TOKENS)
            .then_some(known)
            .into_iter()
            .collect::<Vec<_>>();
        plan = slice(known, 1, &block, SliceOutput::Sample);
    }
    let chain = BlockHash(1).chain(&tokens, BLOCK_TOKENS as usize);
    let hashes: Vec<BlockHash> = sealed.iter().map(|(_, hash)| *hash).collect();
    assert_eq!(
        hashes,
        chain[1..],
        "the first block was the prompt's and is in the ticket"
    );
}

#[test]
fn slices_become_rows_positions_and_pages() {
    let tokens = prompt(2, 40);
    let mut table = table(&tokens, &greedy());
    let first = table.input(&slice(0, 24, &[5, 9], SliceOutput::Nothing));
    assert_eq!(
        (&first.passes[0].tokens[..], first.passes[0].logits.len()),
        (&tokens[..24], 0)
    );
    let second = table.input(&slice(24, 16, &[2], SliceOutput::Sample));
    let pass = &second.passes[0];
    assert_eq!(pass.positions, (24..40).collect::<Vec<_>>());
    assert_eq!(
        (pass.batch.sequences[0].start, pass.batch.sequences[0].rows),
        (24, 16)
    );
    assert_eq!(pass.batch.sequences[0].blocks, [5, 9, 2]);
    assert_eq!((pass.logits.len(), pass.logits[0].row), (1, 15));
    assert_eq!(position(&second), Some(Position(0)));
}

#[test]
fn what_was_resumed_counts_as_output() {
    let tokens = prompt(3, 10);
    let sampling = Sampling {
        presence_penalty: 1.0,
        ..greedy()
    };
    let mut submit = submit(&tokens, &sampling);
    submit.ticket.resumed_tokens = 4;
    let mut table = SequenceTable::new(BLOCK_TOKENS, PASS_ROWS_MAX);
    table.admit(SEQUENCE, submit, None);
    assert_eq!(
        position(&table.input(&slice(0, 10, &[0], SliceOutput::Sample))),
        Some(Position(4))
    );
}

#[test]
fn only_the_clients_prompt_is_scored_and_nothing_is_sampled_where_scores_are_all() {
    let tokens = prompt(4, 10);
    let sampling = Sampling {
        prompt_logprobs: Some(0),
        ..greedy()
    };
    let mut submit = submit(&tokens, &sampling);
    submit.ticket.resumed_tokens = 4;
    let mut table = SequenceTable::new(BLOCK_TOKENS, PASS_ROWS_MAX);
    table.admit(SEQUENCE, submit, None);
    let input = table.input(&slice(0, 10, &[0], SliceOutput::ScoresOnly));
    let scored: Vec<u32> = input.passes[0].logits.iter().map(|row| row.row).collect();
    assert_eq!(scored, [0, 1, 2, 3, 4]);
    assert_eq!(position(&input), None);
}

#[test]
fn a_verdict_reaches_the_engine_and_a_broken_token_is_not_kept() {
    let mut table = table(&prompt(5, 16), &greedy());
    let plan = slice(0, 16, &[0], SliceOutput::Sample);
    table.input(&plan);
    let done = table.record(&plan, &sampled(1, Verdict::Broken), Span::from_millis(3));
    assert_eq!(
        (done.sampled[0].verdict, done.elapsed),
        (Verdict::Broken, Span::from_millis(3))
    );
    assert!(done.sealed.is_empty());
}

#[test]
fn a_reset_sequence_keeps_its_tokens_and_gets_new_pages() {
    let mut table = table(&prompt(6, 16), &greedy());
    table.input(&slice(0, 16, &[0], SliceOutput::Sample));
    let mut plan = slice(0, 16, &[8], SliceOutput::Sample);
    plan.reset.push(SEQUENCE);
    let input = table.input(&plan);
    assert_eq!(input.passes[0].batch.sequences[0].blocks, [8]);
    assert_eq!(input.passes[0].tokens, prompt(6, 16));
}

#[test]
#[should_panic(expected = "never admitted")]
fn a_forgotten_sequence_cannot_be_planned() {
    let mut table = table(&prompt(7, 16), &greedy());
    table.input(&StepPlan {
        forget: vec![SEQUENCE],
        ..StepPlan::default()
    });
    table.input(&slice(0, 16, &[0], SliceOutput::Nothing));
}
