//! `cargo run --release -p node --example step_bench`: what a step costs outside the kernels. The engine's loop of
//! production decodes 64 sequences, with ranks that compute nothing; what passes between two of its calls to the ranks
//! is planning, tables of pages, delivery, and frames written to nobody.

use coordinator::cost::StepCost;
use coordinator::engine::{Engine, EngineConfig};
use node::clock::Clock;
use node::shard_host::engine_loop::{EngineLoop, Hands, LoopMessage};
use proto::engine::{FromEngine, ToEngine};
use proto::request::{PrefixUse, Sampling, ServiceClass, Submit, Ticket};
use proto::step::{StepPlan, Verdict};
use proto::wire::{self, Kind};
use proto::{AdapterId, Attempt, BlockHash, Epoch, ReplicaId, RequestId, SequenceId, StreamId, TenantId};
use shard::{Lost, Purpose, SampledToken, StepInput, StepOutput};
use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

const SEQUENCES: u32 = 64;
const PROMPT_TOKENS: u32 = 512;
const OUTPUT_TOKENS: u32 = 1000;

fn main() {
    let (sender, mailbox) = sync_channel(SEQUENCES as usize + 1);
    for number in 0..SEQUENCES {
        sender.send(LoopMessage::FromNode(submit(number))).unwrap();
    }
    sender.send(LoopMessage::FromNode(ToEngine::Drain)).unwrap();
    let mut sender = Some(sender);
    let (mut times, mut computed) = (Vec::new(), None::<Instant>);
    let hands = Hands {
        launch: |_: &StepPlan, _: &StepInput| Ok(()),
        hidden: 0,
        compute: |input: StepInput| {
            let sampled = sampled(&input);
            if let Some(computed) = computed.filter(|_| sampled.len() == SEQUENCES as usize) {
                times.push(computed.elapsed());
            }
            let output = Ok::<_, Lost>(StepOutput {
                sampled,
                ..StepOutput::default()
            });
            computed = Some(Instant::now());
            output
        },
        compile: |_| Ok(()),
        send: |message: &FromEngine| {
            black_box(wire::frame(Kind::FromEngine, 1, message));
            if *message == FromEngine::Drained {
                sender = None;
            }
            Ok(())
        },
    };
    EngineLoop::new(engine(), hands, Clock::start())
        .run(&mailbox)
        .expect("ranks that do not fail");
    assert!(!times.is_empty(), "no step had all sequences");
    times.sort_unstable();
    let micros = |part: usize| times[(times.len() - 1) * part / 100].as_nanos() as f64 / 1e3;
    println!(
        "{} steps of {SEQUENCES} sequences, outside the ranks: median {:.1} µs, p95 {:.1} µs, p99 {:.1} µs",
        times.len(),
        micros(50),
        micros(95),
        micros(99)
    );
}

fn engine() -> Engine {
    let blocks = SEQUENCES * (PROMPT_TOKENS + OUTPUT_TOKENS).div_ceil(16);
    Engine::new(EngineConfig {
        blocks,
        sequences_per_stage_max: SEQUENCES,
        // Ranks that take no time must not be given less to do for it.
        cost_measured: Some(StepCost {
            fixed_secs: 1e-4,
            per_token_secs: 1e-6,
            per_context_secs: 0.0,
        }),
        ..EngineConfig::for_replica(ReplicaId(1), Epoch(1))
    })
}

fn submit(number: u32) -> ToEngine {
    // No two prompts share a prefix.
    let prompt: Vec<u32> = (0..PROMPT_TOKENS)
        .map(|position| position * 64 + number)
        .collect();
    let ticket = Ticket {
        stream: StreamId {
            request: RequestId(u128::from(number)),
            choice: 0,
        },
        attempt: Attempt(1),
        tenant: TenantId(number % 4),
        class: ServiceClass::Default,
        adapter: AdapterId(0),
        prompt_tokens: PROMPT_TOKENS,
        resumed_tokens: 0,
        block_hashes: Vec::new(),
        max_new_tokens: OUTPUT_TOKENS,
        prefix: PrefixUse::Reuse,
        deadline: None,
    };
    ToEngine::Submit(Box::new(Submit {
        ticket,
        prompt,
        hash_root: BlockHash::default(),
        sampling: Sampling::default(),
    }))
}

/// A token for each sequence that wants one.
fn sampled(input: &StepInput) -> Vec<(SequenceId, SampledToken)> {
    let wanted = input.passes.iter().flat_map(|pass| &pass.logits);
    let sampled = wanted.filter(|row| matches!(row.purpose, Purpose::Sample(_)));
    let token = SampledToken {
        id: 1,
        score: None,
        verdict: Verdict::Continue,
    };
    sampled.map(|row| (row.sequence, token.clone())).collect()
}
