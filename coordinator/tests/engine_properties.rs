//! Whatever happens in whatever order: the shell's pages and clients never see anything wrong, and everything ends.

mod shell;

use coordinator::Machine;
use coordinator::engine::{EngineConfig, EngineEvent};
use proptest::prelude::*;
use proto::request::{PrefixUse, ServiceClass};
use proto::step::{StepDone, Verdict};
use proto::{Attempt, Epoch, Span, StepId, TenantId, Time};
use shell::{Ask, BLOCK_TOKENS, Shell, ask, config, stream};

#[derive(Clone, Debug)]
enum Happening {
    Submit(Ask),
    Cancel(u128, u32),
    /// The oldest step under way returns. Which of the sampled tokens end their sequence: one bit each.
    Step {
        stops: u16,
        breaks: u16,
        waits: u16,
    },
    Resume,
    /// A result of another epoch or step.
    Stray(u64, u64),
    Pass(Span),
}

fn asks() -> impl Strategy<Value = Ask> {
    let whose = (0..12_u128, 0..2_u32, 0..3_u32, 0..3_usize);
    // Few stems and any length: many prompts share a prefix, and some are too long.
    let what = (
        0..3_u32,
        0..70_u32,
        0..12_u32,
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, 0..400_u64),
    );
    (whose, what, 0..2_u32, 0..5_u32).prop_map(|(whose, what, attempt, resumed)| {
        let (request, choice, tenant, class) = whose;
        let (stem, length, max_new_tokens, scored, deadline_ms) = what;
        Ask {
            stream: stream(request, choice),
            attempt: Attempt(attempt),
            tenant: TenantId(tenant),
            class: [ServiceClass::Priority, ServiceClass::Default, ServiceClass::Flex][class],
            prompt: (0..length)
                .map(|index| if index < 20 { stem } else { request as u32 })
                .collect(),
            resumed_tokens: resumed.min(length),
            max_new_tokens,
            prefix: if scored {
                PrefixUse::Recompute
            } else {
                PrefixUse::Reuse
            },
            deadline: deadline_ms.map(|ms| Time::ZERO + Span::from_millis(ms)),
        }
    })
}

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => asks().prop_map(Happening::Submit),
        2 => (0..12_u128, 0..2_u32).prop_map(|(request, choice)| Happening::Cancel(request, choice)),
        10 => (any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>())
            .prop_map(|(a, b, c, d)| Happening::Step { stops: a & b & c, breaks: a & b & c & d, waits: !a & d }),
        4 => Just(Happening::Resume),
        1 => (0..3_u64, 0..40_u64).prop_map(|(epoch, step)| Happening::Stray(epoch, step)),
        1 => (0..200_u64).prop_map(|ms| Happening::Pass(Span::from_millis(ms))),
    ]
}

fn happen(shell: &mut Shell, happening: Happening) {
    match happening {
        // The shell's clients know a stream and attempt once.
        Happening::Submit(ask) if shell.seen.contains_key(&(ask.stream, ask.attempt)) => {}
        Happening::Submit(ask) => shell.submit(ask),
        Happening::Cancel(request, choice) => shell.cancel(stream(request, choice)),
        Happening::Step { stops, breaks, waits } => {
            if shell.plan.is_some() {
                shell.step_with(|sequence| verdict(stops, breaks, waits, sequence.0 % 16));
            }
        }
        Happening::Resume => shell.resume(),
        Happening::Stray(epoch, step) => stray(shell, epoch, step),
        Happening::Pass(span) => shell.now = shell.now + span,
    }
    while shell
        .engine
        .deadline()
        .is_some_and(|deadline| deadline <= shell.now)
    {
        shell.wake();
    }
}

fn verdict(stops: u16, breaks: u16, waits: u16, bit: u64) -> Verdict {
    match (stops >> bit & 1, breaks >> bit & 1, waits >> bit & 1) {
        (_, 1, _) => Verdict::Broken,
        (1, _, _) => Verdict::Stop,
        (_, _, 1) => Verdict::Wait,
        (_, _, _) => Verdict::Continue,
    }
}

fn stray(shell: &mut Shell, epoch: u64, step: u64) {
    let oldest = shell.plan.as_ref().map(|plan| (plan.epoch, plan.step));
    if oldest != Some((Epoch(epoch), StepId(step))) {
        let done = StepDone {
            epoch: Epoch(epoch),
            step: StepId(step),
            ..StepDone::default()
        };
        shell.event(EngineEvent::StepDone(done));
    }
}

fn configs() -> impl Strategy<Value = EngineConfig> {
    let sizes = (4..40_u32, 1..6_u32, 1..24_u32, 8..64_u32, 1..5_u32);
    let rows_at_once = prop_oneof![Just(1), Just(16)];
    (sizes, rows_at_once).prop_map(|((blocks, sequences, tokens, context, stages), rows_at_once)| {
        EngineConfig {
            stages,
            rows_at_once,
            sequences_per_stage_max: sequences,
            step_tokens_max: sequences + tokens,
            context_tokens_max: context,
            ..config(blocks)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_happens_pages_and_positions_stay_right_and_everything_ends(
        config in configs(),
        short_answers in 0..8_u128,
        story in prop::collection::vec(happenings(), 1..120),
    ) {
        let mut shell = Shell::new(config);
        // They make the engine expect short answers and admit too many, so that it must preempt.
        (0..short_answers).for_each(|index| shell.submit(ask(100 + index, 1, 4)));
        shell.run();
        story.into_iter().for_each(|happening| happen(&mut shell, happening));
        shell.run();
        shell.assert_idle();
        shell.event(EngineEvent::Drain);
        assert_eq!(shell.drained, 1);
    }

    #[test]
    fn the_same_events_give_the_same_plans(
        stages in 1..5_u32,
        story in prop::collection::vec(happenings(), 1..60),
    ) {
        let plans = |story: Vec<Happening>| {
            let mut shell = Shell::new(EngineConfig { stages, ..config(12) });
            story.into_iter().for_each(|happening| happen(&mut shell, happening));
            shell.run();
            shell.plans
        };
        prop_assert_eq!(plans(story.clone()), plans(story));
    }

    #[test]
    fn without_ends_and_cancels_every_stream_gets_all_it_asked_for(
        lengths in prop::collection::vec((1..40_u32, 0..20_u32), 1..12),
        blocks in 16..40_u32,
        stages in 1..5_u32,
    ) {
        let mut shell = Shell::new(EngineConfig { stages, ..config(blocks) });
        for (index, (length, max_new_tokens)) in lengths.iter().enumerate() {
            shell.submit(ask(index as u128, *length, *max_new_tokens));
        }
        shell.run();
        shell.assert_idle();
        for (index, (length, max_new_tokens)) in lengths.iter().enumerate() {
            let context = (blocks * BLOCK_TOKENS).min(64);
            prop_assert_eq!(shell.seen(index as u128).positions, *max_new_tokens.min(&(context - length)));
        }
    }
}
