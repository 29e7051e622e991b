//! Several stages: which plans are under way together, and who is in which. Blocks hold 4 tokens.

mod shell;

use coordinator::cost::StepCost;
use coordinator::engine::{EngineConfig, EngineEvent};
use proto::request::{Finish, Refusal, ServiceClass};
use proto::step::{SliceOutput, StepDone, Verdict};
use proto::{Epoch, SequenceId, Span, StepId, Time};
use shell::{Shell, ask, config, shape, stream};

/// Room for long prompts: a step takes 250 tokens, going by the prior cost of 1 ms each.
fn staged(stages: u32) -> EngineConfig {
    EngineConfig {
        stages,
        context_tokens_max: 600,
        sequences_per_stage_max: 32,
        waiting_max: 64,
        step_tokens_max: 400,
        ..config(800)
    }
}

/// How many sequences each of the last plans computes.
fn sizes(shell: &Shell, plans: usize) -> Vec<usize> {
    let first = shell.plans.len() - plans;
    shell.plans[first..]
        .iter()
        .map(|plan| plan.slices.len())
        .collect()
}

fn ended(shell: &Shell, request: u128) -> (u32, Vec<Finish>) {
    let seen = shell.seen(request);
    (seen.positions, seen.finishes.clone())
}

fn land(shell: &mut Shell, landings: usize) {
    (0..landings).for_each(|_| shell.step(Verdict::Continue));
}

#[test]
fn one_long_prompt_fills_every_stage_slice_after_slice() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 80, 2));
    assert_eq!(shape(&shell, 0), [(0, 0, 40)]);
    assert_eq!(shape(&shell, 1), [(0, 40, 40)]);
    assert_eq!(shell.plans[0].slices[0].output, SliceOutput::Nothing);
    assert_eq!(shell.plans[1].slices[0].output, SliceOutput::Sample);
    assert_eq!(shell.in_flight(), 2, "before anything has returned");

    let mut shell = Shell::new(staged(4));
    shell.submit(ask(1, 80, 2));
    let starts: Vec<_> = (0..4).flat_map(|plan| shape(&shell, plan)).collect();
    assert_eq!(starts, [(0, 0, 20), (0, 20, 20), (0, 40, 20), (0, 60, 20)]);
    shell.run();
    assert_eq!(ended(&shell, 1), (2, vec![Finish::Length]));
    shell.assert_idle();
}

#[test]
fn a_prompt_longer_than_all_stages_take_at_once_goes_on_with_each_landing() {
    let mut shell = Shell::new(EngineConfig {
        step_tokens_max: 48,
        ..staged(2)
    });
    shell.submit(ask(1, 212, 1));
    assert_eq!(shell.in_flight(), 2);
    land(&mut shell, 1);
    assert_eq!(shape(&shell, 2), [(0, 96, 48)]);
    land(&mut shell, 1);
    assert_eq!(shape(&shell, 3), [(0, 144, 48)]);
    land(&mut shell, 1);
    assert_eq!(shape(&shell, 4), [(0, 192, 20)]);
    land(&mut shell, 1);
    assert_eq!(shell.in_flight(), 1, "the prompt is planned to its end");
    shell.run();
    assert_eq!(ended(&shell, 1), (1, vec![Finish::Length]));
}

#[test]
fn prompts_that_wait_are_computed_one_after_the_other_and_no_stage_takes_them_all() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 32, 1));
    // They come while both halves of the first prompt are under way.
    (2..6).for_each(|request| shell.submit(ask(request, 60, 1)));
    land(&mut shell, 2);
    // Half of 16 tokens under way and 240 that wait; then half of the 240.
    assert_eq!(shape(&shell, 2), [(1, 0, 60), (2, 0, 60), (3, 0, 8)]);
    assert_eq!(shape(&shell, 3), [(3, 8, 52), (4, 0, 60)]);
}

#[test]
fn a_short_prompt_is_not_worth_cutting() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 14, 1));
    assert_eq!(shape(&shell, 0), [(0, 0, 14)]);
    assert_eq!(shell.in_flight(), 1);
}

#[test]
fn nobody_is_planned_before_its_next_token_is_known() {
    let mut shell = Shell::new(staged(3));
    shell.submit(ask(1, 10, 5));
    while shell.plan.is_some() {
        assert_eq!(shell.in_flight(), 1);
        land(&mut shell, 1);
    }
    assert_eq!(ended(&shell, 1), (5, vec![Finish::Length]));
}

#[test]
fn sequences_that_decode_are_divided_equally_and_the_parts_alternate() {
    let mut shell = Shell::new(staged(2));
    (0..16).for_each(|request| shell.submit(ask(request, 4, 100)));
    land(&mut shell, 10);
    assert_eq!(sizes(&shell, 6), [8; 6]);
    let part = |plan: usize| {
        let shape = shape(&shell, plan);
        shape
            .into_iter()
            .map(|(sequence, ..)| sequence)
            .collect::<Vec<_>>()
    };
    let last = shell.plans.len() - 1;
    assert_eq!(part(last), part(last - 2), "the same ones");
    let mut both = [part(last), part(last - 1)].concat();
    both.sort_unstable();
    assert_eq!(both, (0..16).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_divided_equally_still_leaves_something_for_every_stage() {
    let mut shell = Shell::new(staged(4));
    shell.submit(ask(1, 80, 1));
    (2..7).for_each(|request| shell.submit(ask(request, 2, 50)));
    land(&mut shell, 4);
    assert_eq!(sizes(&shell, 1), [5], "all are in one step");
    land(&mut shell, 1);
    assert_eq!(sizes(&shell, 4), [2, 1, 1, 1]);
}

#[test]
fn the_parts_become_equal_again_after_all_were_in_one() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 40, 1));
    // Six short prompts, together less than is worth cutting, join while both stages are busy, and sample in one step.
    (2..8).for_each(|request| shell.submit(ask(request, 2, 50)));
    land(&mut shell, 2);
    assert_eq!(sizes(&shell, 1), [6]);
    assert_eq!(shell.in_flight(), 1, "nothing is left for the other stage");
    land(&mut shell, 1);
    assert_eq!(sizes(&shell, 2), [3, 3]);
}

#[test]
fn the_parts_become_equal_again_after_one_of_them_has_ended() {
    let mut shell = Shell::new(staged(2));
    (0..4).for_each(|request| shell.submit(ask(request, 4, 100)));
    land(&mut shell, 6);
    assert_eq!(sizes(&shell, 2), [2, 2]);
    shell.step(Verdict::Stop);
    assert_eq!(shell.in_flight(), 1);
    land(&mut shell, 1);
    assert_eq!(sizes(&shell, 2), [1, 1]);
    assert_eq!(shell.in_flight(), 2);
}

#[test]
fn a_sequence_that_comes_takes_the_idle_stage_at_once() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 4, 9));
    assert_eq!(shell.in_flight(), 1);
    shell.submit(ask(2, 4, 9));
    assert_eq!(shape(&shell, 1), [(1, 0, 4)]);
    shell.submit(ask(3, 4, 9));
    assert_eq!(shell.in_flight(), 2, "no third plan for two stages");
}

#[test]
fn only_the_oldest_plan_can_return() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 80, 1));
    let younger = StepDone {
        epoch: Epoch(1),
        step: StepId(1),
        ..StepDone::default()
    };
    shell.event(EngineEvent::StepDone(younger));
    assert_eq!(shell.plans.len(), 2, "without effect");
    shell.run();
    assert_eq!(ended(&shell, 1), (1, vec![Finish::Length]));
}

#[test]
fn a_cancelled_stream_keeps_its_pages_until_its_last_slice_has_returned() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 80, 5));
    shell.cancel(stream(1, 0));
    assert_eq!(ended(&shell, 1), (0, vec![Finish::Cancelled]));
    land(&mut shell, 1);
    assert_eq!(shell.engine.load().blocks_free, 780, "half of it is under way");
    land(&mut shell, 1);
    assert_eq!(shell.engine.load().blocks_free, 800);
    shell.submit(ask(2, 4, 1));
    assert_eq!(shell.plans.last().unwrap().forget, [SequenceId(0)]);
}

#[test]
fn a_drained_engine_has_nothing_under_way() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 80, 5));
    shell.event(EngineEvent::Drain);
    shell.cancel(stream(1, 0));
    land(&mut shell, 1);
    assert_eq!(shell.drained, 0);
    land(&mut shell, 1);
    assert_eq!(shell.drained, 1);
}

#[test]
fn a_burst_of_one_prompt_waits_for_the_slices_that_are_under_way() {
    let mut shell = Shell::new(staged(2));
    (1..5).for_each(|request| shell.submit(ask(request, 0, 2).prompt(0..80)));
    shell.run();
    let slices = shell.plans.iter().flat_map(|plan| &plan.slices);
    let computed: u32 = slices.map(|slice| slice.count).sum();
    // One whole prompt, the last block of the three others, and one decoding token each.
    assert_eq!(computed, 80 + 3 * 4 + 4);
}

#[test]
fn who_waits_for_a_grammar_is_in_no_plan_and_the_others_keep_the_stages_busy() {
    let mut shell = Shell::new(staged(2));
    (0..3).for_each(|request| shell.submit(ask(request, 4, 20)));
    land(&mut shell, 6);
    shell.step_with(|sequence| match sequence.0 {
        0 => Verdict::Wait,
        _other => Verdict::Continue,
    });
    let at = shell.plans.iter().rev().flat_map(|plan| plan.slices.clone());
    let waiting = at.into_iter().find(|slice| slice.sequence.0 == 0).unwrap();
    let planned = shell.plans.len();
    land(&mut shell, 6);
    assert_eq!(shell.in_flight(), 2);
    let later = || shell.plans[planned..].iter().flat_map(|plan| &plan.slices);
    assert!(later().all(|slice| slice.sequence.0 != 0));
    shell.resume();
    land(&mut shell, 2);
    let again = shell.plans[planned..].iter().flat_map(|plan| &plan.slices);
    let again: Vec<_> = again.filter(|slice| slice.sequence.0 == 0).collect();
    assert_eq!(again[0].start, waiting.start, "the very position");
    shell.run();
    shell.assert_idle();
}

/// Four short answers teach the engine to expect no more of the next ones, so it admits too many.
fn misled(stages: u32) -> Shell {
    let mut shell = Shell::new(EngineConfig {
        stages,
        context_tokens_max: 40,
        ..config(10)
    });
    (11..15).for_each(|request| shell.submit(ask(request, 1, 4)));
    shell.run();
    shell
}

#[test]
fn who_needs_pages_waits_for_the_newest_to_return_and_takes_them_then() {
    let mut shell = misled(2);
    shell.submit(ask(1, 8, 30));
    shell.submit(ask(2, 8, 30));
    shell.run();
    assert!(shell.engine.load().preemptions > 0);
    let resets: Vec<_> = shell.plans.iter().flat_map(|plan| &plan.reset).collect();
    assert!(
        resets.iter().all(|sequence| **sequence == SequenceId(5)),
        "the newest gives way, although it was under way when the other asked: {resets:?}"
    );
    assert_eq!(ended(&shell, 1), (30, vec![Finish::Length]));
    assert_eq!(ended(&shell, 2), (30, vec![Finish::Length]));
    shell.assert_idle();
}

#[test]
fn a_better_class_waits_for_a_lower_one_that_is_under_way_and_then_goes_first() {
    let mut shell = misled(2);
    shell.submit(ask(1, 8, 30).class(ServiceClass::Flex));
    shell.submit(ask(2, 8, 30).class(ServiceClass::Priority));
    shell.run();
    let resets: Vec<_> = shell.plans.iter().flat_map(|plan| &plan.reset).collect();
    assert!(!resets.is_empty() && resets.iter().all(|sequence| **sequence == SequenceId(4)));
    assert_eq!(ended(&shell, 1), (30, vec![Finish::Length]));
    shell.assert_idle();
}

/// Sequences A and F of tenant 1, under way in turns on two stages; A asks first for a page that is not there. Tenant 2
/// holds no more than its claim, so that its cached pages are not for tenant 1 while anything is under way.
mod short_of_pages {
    use super::*;

    const A: u128 = 1;
    const F: u128 = 2;
    const V: u128 = 3;

    /// 17 answers teach the engine that one token comes, and after one a second: it foresees no growth below.
    fn two_tenants() -> Shell {
        let mut shell = Shell::new(EngineConfig {
            stages: 2,
            ..config(8)
        });
        (100..113).for_each(|request| shell.submit(ask(request, 1, 1)));
        (113..117).for_each(|request| shell.submit(ask(request, 1, 2)));
        shell.run();
        shell
    }

    fn a_and_f(shell: &mut Shell) {
        shell.submit(ask(A, 10, 5));
        shell.submit(ask(F, 9, 4));
    }

    /// V of tenant 2 decodes together with A, in a lower class. A takes its pages away and still cannot have them.
    fn in_vain() -> Shell {
        let mut shell = two_tenants();
        a_and_f(&mut shell);
        shell.submit(ask(V, 7, 4).tenant(2).class(ServiceClass::Flex));
        // A's prompt, F's, A's second token with V's prompt, F's second, A's third with V's second, F's third.
        land(&mut shell, 5);
        assert_eq!((shell.in_flight(), shell.engine.load().preemptions), (1, 1));
        assert!(shell.plans.iter().all(|plan| plan.reset.is_empty()));
        shell
    }

    #[test]
    fn who_was_preempted_in_vain_is_told_with_the_next_plan_and_goes_on_later() {
        let mut shell = in_vain();
        land(&mut shell, 1);
        let plan = &shell.plans[shell.plans.len() - 2];
        assert_eq!(plan.reset.len(), 1);
        assert_eq!(
            plan.zero.len(),
            1,
            "nothing else was under way: A took it all the same"
        );
        shell.run();
        assert_eq!(ended(&shell, A), (5, vec![Finish::Length]));
        assert_eq!(ended(&shell, V), (4, vec![Finish::Length]));
        shell.assert_idle();
    }

    #[test]
    fn who_was_preempted_in_vain_and_then_ended_is_only_forgotten() {
        let mut shell = in_vain();
        shell.cancel(stream(V, 0));
        land(&mut shell, 1);
        let plan = &shell.plans[shell.plans.len() - 2];
        assert_eq!((plan.reset.len(), plan.forget.len()), (0, 1));
        shell.run();
        shell.assert_idle();
    }

    #[test]
    fn nobody_new_comes_in_while_one_that_runs_waits_for_pages() {
        let mut shell = two_tenants();
        shell.submit(ask(V, 8, 1).tenant(2));
        shell.run();
        a_and_f(&mut shell);
        land(&mut shell, 5);
        assert_eq!((shell.in_flight(), shell.engine.load().preemptions), (1, 0));
        shell.submit(ask(9, 3, 1).tenant(2));
        assert_eq!(shell.in_flight(), 1, "or A might wait for ever");
        assert_eq!(shell.engine.load().waiting, 1);
        shell.run();
        assert_eq!(ended(&shell, A), (5, vec![Finish::Length]));
        shell.assert_idle();
    }

    #[test]
    fn the_newest_keeps_its_pages_while_it_waits_for_one_that_is_under_way() {
        let mut shell = two_tenants();
        shell.submit(ask(V, 8, 1).tenant(2));
        shell.run();
        // Now it is the newer one that needs another page first.
        shell.submit(ask(A, 9, 8));
        shell.submit(ask(F, 10, 6));
        land(&mut shell, 6);
        let load = shell.engine.load();
        assert_eq!((shell.in_flight(), load.running, load.preemptions), (1, 2, 0));
        shell.run();
        assert_eq!(ended(&shell, F), (6, vec![Finish::Length]));
        shell.assert_idle();
    }
}

#[test]
fn the_forecast_of_a_full_queue_counts_on_all_stages() {
    let cost = StepCost {
        fixed_secs: 20e-3,
        per_token_secs: 10e-3,
        per_context_secs: 8e-6,
    };
    let mut shell = Shell::new(EngineConfig {
        waiting_max: 2,
        sequences_per_stage_max: 1,
        cost_measured: Some(cost),
        ..staged(2)
    });
    (1..5).for_each(|request| shell.submit(ask(request, 20, 5)));
    let [(refused, Refusal::Busy { retry_after })] = shell.refused.as_slice() else {
        panic!("{:?}", shell.refused)
    };
    assert_eq!(*refused, stream(4, 0));
    // 60 prompt tokens, of which two are computed at a time. Three answers of 128, two side by side, each alone in the
    // steps of one stage: a token each in every 20 + 10 ms.
    let prompts_secs = 60.0 / 2.0 * 10e-3;
    let answers_secs = 2.0 * 128.0 * 30e-3;
    let error = retry_after.as_secs_f64() - (prompts_secs + answers_secs);
    assert!(error.abs() < 1e-6, "{retry_after:?}");
    let load = shell.engine.load();
    assert_eq!((load.step_fixed_secs, load.step_per_context_secs), (20e-3, 4e-6));
}

#[test]
fn stages_without_work_show_as_a_bubble() {
    let mut shell = Shell::new(staged(2));
    shell.submit(ask(1, 4, 10));
    shell.run();
    // Always one step of 10 ms under way, and never two.
    let used = shell.engine.pipeline();
    assert_eq!(used.occupied, Span::from_millis(100));
    assert_eq!(used.least, used.occupied, "nothing comes between the stages");
    assert_eq!(used.computed, [Span::from_millis(50), Span::from_millis(50)]);
    assert_eq!(used.shares().collect::<Vec<_>>(), [0.5, 0.5]);
    assert!((used.bubble() - 0.5).abs() < 1e-12);
    // A pause is no bubble.
    shell.now = Time::ZERO + Span::from_secs(9);
    shell.submit(ask(2, 4, 10));
    shell.run();
    assert_eq!(shell.engine.pipeline().occupied, Span::from_millis(200));
}
