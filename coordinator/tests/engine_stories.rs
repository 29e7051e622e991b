//! Events in, plans and deliveries out. Blocks hold 4 tokens, a step computes at most 16.

mod shell;

use coordinator::Machine;
use coordinator::cost::StepCost;
use coordinator::engine::{EngineConfig, EngineEvent};
use proto::engine::Timing;
use proto::request::{Finish, Refusal, ServiceClass};
use proto::step::{SliceOutput, StepDone, Verdict};
use proto::{Attempt, Epoch, SequenceId, Span, StepId, Time};
use shell::{Ask, Shell, ask, config, shape, stream};

fn ended(shell: &Shell, request: u128) -> (u32, Vec<Finish>) {
    let seen = shell.seen(request);
    (seen.positions, seen.finishes.clone())
}

#[test]
fn a_long_prompt_is_computed_in_chunks_and_then_tokens_follow_one_by_one() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 20, 3));
    shell.run();
    assert_eq!(shape(&shell, 0), [(0, 0, 16)]);
    assert_eq!(shape(&shell, 1), [(0, 16, 4)]);
    assert_eq!(shape(&shell, 2), [(0, 20, 1)]);
    assert_eq!(shape(&shell, 3), [(0, 21, 1)]);
    let outputs: Vec<_> = shell.plans.iter().map(|plan| plan.slices[0].output).collect();
    assert_eq!(
        outputs,
        [
            SliceOutput::Nothing,
            SliceOutput::Sample,
            SliceOutput::Sample,
            SliceOutput::Sample
        ]
    );
    assert_eq!(ended(&shell, 1), (3, vec![Finish::Length]));
    shell.assert_idle();
}

/// In milliseconds.
fn timing(queue: u64, prefill: u64, decode: u64) -> Timing {
    Timing {
        queue: Span::from_millis(queue),
        prefill: Span::from_millis(prefill),
        decode: Span::from_millis(decode),
    }
}

/// Each step takes 10 ms.
#[test]
fn a_stream_hears_with_its_first_token_and_at_its_end_where_its_time_went() {
    let one_at_a_time = EngineConfig {
        sequences_per_stage_max: 1,
        ..config(32)
    };
    let mut shell = Shell::new(one_at_a_time);
    shell.submit(ask(1, 20, 3));
    shell.submit(ask(2, 4, 2));
    shell.submit(ask(3, 4, 0));
    shell.run();
    assert_eq!(shell.seen(1).timings, [timing(0, 20, 0), timing(0, 20, 20)]);
    assert_eq!(shell.seen(2).timings, [timing(40, 10, 0), timing(40, 10, 10)]);
    assert_eq!(
        shell.seen(3).timings,
        [timing(60, 10, 0)],
        "scored only: no token, one delivery"
    );
}

#[test]
fn decoding_goes_first_and_a_prompt_takes_what_is_left_of_the_step() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 4, 9));
    shell.step(Verdict::Continue);
    shell.submit(ask(2, 30, 1));
    shell.step(Verdict::Continue);
    assert_eq!(shape(&shell, 2), [(0, 5, 1), (1, 0, 15)]);
}

#[test]
fn choices_of_one_request_share_the_blocks_of_their_prompt() {
    let mut shell = Shell::new(config(32));
    (0..3).for_each(|choice| shell.submit(ask(1, 10, 4).choice(choice)));
    assert_eq!(shape(&shell, 0), [(0, 0, 10)]);
    shell.step(Verdict::Continue);
    assert_eq!(shape(&shell, 1), [(0, 10, 1), (1, 8, 2), (2, 8, 2)]);
    shell.run();
    let cached: Vec<_> = (0..3)
        .map(|choice| shell.seen[&(stream(1, choice), Attempt(0))].cached_tokens)
        .collect();
    assert_eq!(cached, [Some(0), Some(8), Some(8)]);
    shell.assert_idle();
}

#[test]
fn a_burst_of_one_long_prompt_waits_for_the_first_to_compute_it() {
    let mut shell = Shell::new(config(64));
    for request in 1..5 {
        shell.submit(ask(request, 0, 2).prompt(0..40));
    }
    shell.run();
    let computed: u64 = shell
        .plans
        .iter()
        .flat_map(|plan| &plan.slices)
        .map(|slice| u64::from(slice.count))
        .sum();
    // One whole prompt, the last block of the three others, and one decoding token each.
    assert_eq!(computed, 40 + 3 * 4 + 4);
}

#[test]
fn at_least_the_last_token_of_a_known_prompt_is_computed_again() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 0, 1).prompt(0..8));
    shell.run();
    shell.submit(ask(2, 0, 1).prompt(0..8));
    assert_eq!(shape(&shell, 1), [(1, 4, 4)]);
}

#[test]
fn a_prompt_whose_scores_are_wanted_uses_no_hit() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 0, 1).prompt(0..12));
    shell.run();
    shell.submit(ask(2, 0, 0).prompt(0..12).recompute());
    assert_eq!(shape(&shell, 1), [(1, 0, 12)]);
    assert_eq!(shell.plans[1].slices[0].output, SliceOutput::ScoresOnly);
    shell.run();
    assert_eq!(ended(&shell, 2), (0, vec![Finish::Length]));
    assert_eq!(shell.seen(2).cached_tokens, Some(0));
}

#[test]
fn the_next_turn_of_a_conversation_finds_the_blocks_of_the_answer() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 0, 8).prompt(0..6));
    shell.run();
    let tokens = shell.tokens_of_last_stream();
    shell.submit(ask(2, 0, 1).prompt(tokens.into_iter().chain([7, 8, 9])));
    // 6 + 8 tokens are known, the last of them was never computed: 3 full blocks.
    assert_eq!(shell.plans.last().unwrap().slices[0].start, 12);
}

/// Four short answers (sequences 0 to 3) teach the engine to expect no more of the next ones, so it admits too many.
fn misled(class_of_fifth: ServiceClass, class_of_sixth: ServiceClass) -> Shell {
    let mut shell = Shell::new(EngineConfig {
        context_tokens_max: 40,
        ..config(10)
    });
    (11..15).for_each(|request| shell.submit(ask(request, 1, 4)));
    shell.run();
    shell.submit(ask(1, 8, 30).class(class_of_fifth));
    shell.submit(ask(2, 8, 30).class(class_of_sixth));
    shell.run();
    assert!(shell.engine.load().preemptions > 0);
    assert_eq!(ended(&shell, 1), (30, vec![Finish::Length]));
    assert_eq!(ended(&shell, 2), (30, vec![Finish::Length]));
    shell.assert_idle();
    shell
}

fn was_preempted(shell: &Shell, sequence: u64) -> bool {
    shell
        .plans
        .iter()
        .any(|plan| plan.reset.contains(&SequenceId(sequence)))
}

#[test]
fn sequences_that_are_expected_to_outgrow_the_pool_together_do_not_run_together() {
    let mut shell = Shell::new(EngineConfig {
        context_tokens_max: 40,
        ..config(10)
    });
    shell.submit(ask(1, 8, 30));
    shell.submit(ask(2, 8, 30));
    shell.run();
    assert_eq!(shell.engine.load().preemptions, 0);
    assert_eq!(ended(&shell, 2), (30, vec![Finish::Length]));
}

#[test]
fn the_first_to_decode_may_take_the_cache_that_another_tenant_claims() {
    let mut shell = Shell::new(config(8));
    shell.submit(ask(1, 16, 1).tenant(2));
    shell.run();
    assert_eq!(shell.engine.load().blocks_cached, 4);
    shell.submit(ask(2, 8, 24));
    shell.run();
    assert_eq!(ended(&shell, 2), (24, vec![Finish::Length]));
}

#[test]
fn a_better_class_does_not_wait_for_a_lower_one_to_compute_its_prefix() {
    let mut shell = Shell::new(config(64));
    shell.submit(ask(1, 0, 1).prompt(0..40).class(ServiceClass::Flex));
    shell.submit(ask(2, 0, 1).prompt(0..40).class(ServiceClass::Priority));
    shell.step(Verdict::Continue);
    assert_eq!(
        shape(&shell, 1),
        [(1, 16, 16)],
        "it uses what is there and goes on"
    );
}

#[test]
fn under_pressure_the_newest_gives_way_and_later_continues_without_gap_or_repeat() {
    let shell = misled(ServiceClass::Default, ServiceClass::Default);
    assert!(!was_preempted(&shell, 4) && was_preempted(&shell, 5));
}

#[test]
fn under_pressure_the_lower_class_gives_way_even_if_it_is_older() {
    let shell = misled(ServiceClass::Flex, ServiceClass::Priority);
    assert!(was_preempted(&shell, 4) && !was_preempted(&shell, 5));
}

#[test]
fn pages_are_never_reserved_for_the_whole_context() {
    let mut shell = Shell::new(EngineConfig {
        context_tokens_max: 2000,
        ..config(40)
    });
    (1..5).for_each(|request| shell.submit(ask(request, 4, 4)));
    shell.run();
    // Together these four may grow to 4 × 160 tokens; going by what was seen they will not.
    (11..15).for_each(|request| shell.submit(ask(request, 4, 156)));
    shell.step(Verdict::Continue);
    assert_eq!(shell.engine.load().running, 4);
}

#[test]
fn a_cancelled_stream_is_silent_at_once_and_its_pages_return_with_the_step() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 10, 5));
    shell.cancel(stream(1, 0));
    assert_eq!(ended(&shell, 1), (0, vec![Finish::Cancelled]));
    assert!(
        shell.engine.load().blocks_free < 32,
        "the ranks are still writing into them"
    );
    shell.step(Verdict::Continue);
    assert_eq!(shell.engine.load().blocks_free, 32);
    assert_eq!(
        ended(&shell, 1),
        (0, vec![Finish::Cancelled]),
        "the late result is ignored"
    );
    shell.submit(ask(2, 4, 1));
    assert_eq!(shell.plans.last().unwrap().forget, [SequenceId(0)]);
}

#[test]
fn a_waiting_stream_that_is_cancelled_was_never_computed() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 10, 2));
    shell.submit(ask(2, 10, 2));
    shell.cancel(stream(2, 0));
    shell.run();
    assert!(
        shell
            .plans
            .iter()
            .all(|plan| plan.slices.iter().all(|slice| slice.sequence == SequenceId(0)))
    );
    shell.assert_idle();
}

#[test]
fn late_repeated_and_foreign_events_are_without_effect() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 10, 5));
    let stale = |epoch, step| {
        let done = StepDone {
            epoch: Epoch(epoch),
            step: StepId(step),
            ..StepDone::default()
        };
        EngineEvent::StepDone(done)
    };
    shell.event(stale(0, 0));
    shell.event(stale(1, 7));
    shell.event(EngineEvent::Cancel {
        stream: stream(1, 0),
        attempt: Attempt(1),
    });
    shell.event(EngineEvent::Cancel {
        stream: stream(9, 0),
        attempt: Attempt(0),
    });
    shell.event(EngineEvent::Submit(ask(1, 10, 5).ticket()));
    shell.step(Verdict::Continue);
    shell.event(stale(1, 0));
    shell.run();
    assert_eq!(ended(&shell, 1), (5, vec![Finish::Length]));
}

#[test]
fn a_newer_attempt_replaces_the_older_one_and_continues_its_positions() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 10, 5));
    shell.step(Verdict::Continue);
    shell.submit(Ask {
        attempt: Attempt(1),
        resumed_tokens: 1,
        ..ask(1, 11, 4)
    });
    shell.run();
    assert_eq!(
        shell.seen[&(stream(1, 0), Attempt(0))].finishes,
        [Finish::Cancelled]
    );
    let second = &shell.seen[&(stream(1, 0), Attempt(1))];
    assert_eq!(
        (second.positions, second.finishes.as_slice()),
        (4, [Finish::Length].as_slice())
    );
}

#[test]
fn a_stop_token_is_delivered_and_ends_the_stream_and_broken_logits_end_only_their_own() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 4, 9));
    shell.submit(ask(2, 4, 9));
    shell.step(Verdict::Continue);
    shell.step_with(|sequence| {
        if sequence == SequenceId(0) {
            Verdict::Broken
        } else {
            Verdict::Stop
        }
    });
    shell.run();
    assert_eq!(ended(&shell, 1), (1, vec![Finish::Failed]));
    assert_eq!(ended(&shell, 2), (1, vec![Finish::Stop]));
}

#[test]
fn what_can_never_fit_is_refused_and_what_may_grow_too_long_ends_at_the_context() {
    let mut shell = Shell::new(EngineConfig {
        context_tokens_max: 20,
        ..config(32)
    });
    shell.submit(ask(1, 20, 1));
    assert_eq!(
        shell.refused,
        [(
            stream(1, 0),
            Refusal::TooLong {
                tokens: 21,
                tokens_max: 20
            }
        )]
    );
    shell.submit(ask(2, 15, 1000));
    shell.submit(ask(3, 20, 0));
    shell.run();
    assert_eq!(ended(&shell, 2), (5, vec![Finish::Length]));
    assert_eq!(ended(&shell, 3), (0, vec![Finish::Length]));
    let mut small = Shell::new(config(3));
    small.submit(ask(1, 12, 1));
    assert_eq!(
        small.refused,
        [(
            stream(1, 0),
            Refusal::TooLong {
                tokens: 13,
                tokens_max: 12
            }
        )]
    );
}

#[test]
fn a_full_queue_is_refused_with_the_time_that_its_work_will_take() {
    let cost = StepCost {
        fixed_secs: 0.0,
        per_token_secs: 10e-3,
        per_context_secs: 0.0,
    };
    let config = EngineConfig {
        waiting_max: 2,
        sequences_per_stage_max: 1,
        cost_measured: Some(cost),
        ..config(32)
    };
    let mut shell = Shell::new(config);
    (1..5).for_each(|request| shell.submit(ask(request, 20, 5)));
    let [(refused, Refusal::Busy { retry_after })] = shell.refused.as_slice() else {
        panic!("{:?}", shell.refused)
    };
    assert_eq!(*refused, stream(4, 0));
    // 60 prompt tokens and 3 answers of 128, one after the other, at 10 ms each.
    assert_eq!(*retry_after, Span::from_secs_f64(0.6 + 3.84));
}

#[test]
fn a_stream_expires_at_its_deadline_waiting_or_running() {
    let mut shell = Shell::new(EngineConfig {
        sequences_per_stage_max: 1,
        ..config(32)
    });
    let deadline = Time::ZERO + Span::from_millis(25);
    shell.submit(ask(1, 4, 50).deadline(deadline));
    shell.submit(ask(2, 4, 50).deadline(deadline));
    shell.step(Verdict::Continue);
    assert_eq!(shell.engine.deadline(), Some(deadline));
    shell.now = deadline;
    shell.wake();
    assert_eq!(ended(&shell, 1), (1, vec![Finish::Expired]));
    assert_eq!(ended(&shell, 2), (0, vec![Finish::Expired]));
    shell.run();
    shell.assert_idle();
}

#[test]
fn two_tenants_share_the_steps_however_much_one_of_them_sends() {
    let mut shell = Shell::new(EngineConfig {
        sequences_per_stage_max: 4,
        ..config(64)
    });
    (1..9).for_each(|request| shell.submit(ask(request, 32, 1).tenant(1)));
    shell.submit(ask(100, 32, 1).tenant(2));
    // Tenant 2 starts level with tenant 1, and then has as much as that before it is tenant 1's turn again.
    (0..3).for_each(|_| shell.step(Verdict::Continue));
    assert_eq!(shape(&shell, 1), [(0, 16, 16)]);
    assert_eq!(shape(&shell, 2), [(8, 0, 16)]);
    assert_eq!(shape(&shell, 3), [(8, 16, 16)]);
}

#[test]
fn a_better_class_goes_first_and_a_lower_one_does_not_wait_for_ever() {
    let mut shell = Shell::new(EngineConfig {
        sequences_per_stage_max: 1,
        ..config(64)
    });
    shell.submit(ask(1, 4, 1));
    shell.submit(ask(2, 4, 1).class(ServiceClass::Flex));
    shell.submit(ask(3, 4, 1).class(ServiceClass::Priority));
    shell.step(Verdict::Continue);
    assert_eq!(shape(&shell, 1), [(2, 0, 4)]);
    shell.now = shell.now + Span::from_secs(11);
    shell.submit(ask(4, 4, 1).class(ServiceClass::Priority));
    shell.step(Verdict::Continue);
    assert_eq!(
        shape(&shell, 2),
        [(1, 0, 4)],
        "after 10 s it counts as the best class"
    );
}

#[test]
fn pages_that_cross_tenants_are_zeroed_first() {
    let mut shell = Shell::new(config(8));
    shell.submit(ask(1, 30, 1).tenant(1));
    shell.run();
    shell.submit(ask(2, 30, 1).tenant(2));
    assert_eq!(shell.plans.last().unwrap().zero.len(), 8);
    shell.run();
    shell.assert_idle();
}

#[test]
fn draining_refuses_new_work_finishes_the_old_and_says_so_once() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 4, 3));
    shell.event(EngineEvent::Drain);
    shell.submit(ask(2, 4, 3));
    assert_eq!(shell.refused, [(stream(2, 0), Refusal::Draining)]);
    assert_eq!(shell.drained, 0);
    shell.run();
    assert_eq!(ended(&shell, 1), (3, vec![Finish::Length]));
    assert_eq!(shell.drained, 1);
}

#[test]
fn load_is_reported_when_work_begins_and_ends_and_at_most_every_100_ms_between() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 4, 25));
    shell.run();
    // At the start, after 100 and 200 ms of steps, and when it became idle after 250 ms.
    assert_eq!(shell.reports.len(), 4);
    let last = shell.reports.last().unwrap();
    assert_eq!((last.running, last.sampled_tokens, last.steps), (0, 25, 25));
    assert_eq!(shell.engine.deadline(), None, "nothing more to say");
}

#[test]
fn a_ticket_that_makes_no_sense_fails_alone() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 0, 5));
    assert_eq!(ended(&shell, 1), (0, vec![Finish::Failed]));
    shell.submit(ask(2, 4, 1));
    shell.run();
    assert_eq!(ended(&shell, 2), (1, vec![Finish::Length]));
}

#[test]
fn a_sequence_that_must_wait_is_computed_again_once_it_may_and_others_go_on() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 8, 2));
    shell.submit(ask(2, 3, 3));
    shell.step(Verdict::Continue);
    shell.step_with(|sequence| match sequence.0 {
        0 => Verdict::Wait,
        _other => Verdict::Continue,
    });
    assert_eq!(shape(&shell, 2), [(1, 3, 1)], "the other one goes on alone");
    shell.step(Verdict::Continue);
    shell.step(Verdict::Continue);
    assert!(shell.plan.is_none(), "what waits is not planned");
    shell.resume();
    assert_eq!(shape(&shell, 4), [(0, 8, 1)], "the very position");
    shell.run();
    assert_eq!(ended(&shell, 1), (2, vec![Finish::Length]));
    assert_eq!(ended(&shell, 2), (3, vec![Finish::Length]));
    shell.assert_idle();
}

#[test]
fn a_sequence_that_waits_at_the_end_of_its_prompt_can_be_cancelled() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 8, 2));
    shell.step(Verdict::Wait);
    shell.cancel(stream(1, 0));
    shell.resume();
    assert_eq!(ended(&shell, 1), (0, vec![Finish::Cancelled]));
    shell.assert_idle();
}

#[test]
fn a_complete_grammar_ends_its_stream_without_another_token() {
    let mut shell = Shell::new(config(32));
    shell.submit(ask(1, 8, 9));
    shell.step(Verdict::Continue);
    shell.step(Verdict::Complete);
    assert_eq!(ended(&shell, 1), (1, vec![Finish::Stop]));
    shell.submit(ask(2, 8, 9));
    shell.step(Verdict::Unguided);
    assert_eq!(ended(&shell, 2), (0, vec![Finish::GrammarTooCostly]));
    shell.assert_idle();
}
