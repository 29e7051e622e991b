//! A replica: the production engine in front of a modelled device.

use crate::checkers::blocks_conserved;
use crate::device::{Computation, ModelledDevice};
use crate::random::Random;
use crate::scenario::{Device, Scenario, secs};
use crate::workload::generated_block_name;
use coordinator::Machine;
use coordinator::engine::{Engine, EngineAction, EngineConfig, EngineEvent};
use proto::engine::{Load, PipelineUse, ReplicaInfo};
use proto::request::Ticket;
use proto::step::{Sampled, SliceOutput, StepDone, StepPlan, Verdict};
use proto::{Attempt, Epoch, ReplicaId, SequenceId, Span, StreamId, Time};
use std::collections::BTreeMap;

pub struct Replica {
    pub id: ReplicaId,
    pub epoch: Epoch,
    /// `None` while it is down.
    engine: Option<Engine>,
    device: ModelledDevice,
    sequences: BTreeMap<SequenceId, Running>,
    /// Which gateway asked.
    gateways: BTreeMap<(StreamId, Attempt), usize>,
    tickets: BTreeMap<(StreamId, Attempt), Ticket>,
    pub armed: Option<Time>,
    pub history: History,
}

/// Sums over all epochs.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub busy: Span,
    pub pipeline: PipelineUse,
    pub steps: u64,
    pub preemptions: u64,
    pub prefix_queried_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub computed_tokens: u64,
    pub sampled_tokens: u64,
}

/// What the ranks keep of a sequence: its length.
#[derive(Clone, Copy, Debug)]
struct Running {
    stream: StreamId,
    tenant: usize,
    tokens: u32,
    /// Where in the stream's output the next token belongs.
    position: u32,
}

impl Replica {
    pub fn new(index: usize, device: &Device, random: Random) -> Replica {
        Replica {
            id: ReplicaId(index as u32),
            epoch: Epoch(0),
            engine: None,
            device: ModelledDevice::new(device, random),
            sequences: BTreeMap::new(),
            gateways: BTreeMap::new(),
            tickets: BTreeMap::new(),
            armed: None,
            history: History::default(),
        }
    }

    /// Empty and ready, in a new epoch.
    pub fn start(&mut self, scenario: &Scenario) -> ReplicaInfo {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.engine = Some(Engine::new(config(scenario, self.id, self.epoch)));
        self.device.clear();
        ReplicaInfo {
            replica: self.id,
            epoch: self.epoch,
            context_tokens_max: scenario.engine.context_tokens_max,
            block_tokens: scenario.engine.block_tokens,
            blocks: scenario.engine.blocks,
            numerics: 0,
            description: "simulated".into(),
        }
    }

    /// Everything is lost, the steps under way too.
    pub fn crash(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.history.add(&engine.load(), engine.pipeline());
        }
        self.sequences.clear();
        self.gateways.clear();
        self.tickets.clear();
        self.armed = None;
    }

    pub fn is_up(&self) -> bool {
        self.engine.is_some()
    }

    /// At the end of the play.
    pub fn total(&self) -> History {
        let mut total = self.history.clone();
        if let Some(engine) = &self.engine {
            total.add(&engine.load(), engine.pipeline());
        }
        total
    }

    pub fn submit(&mut self, now: Time, gateway: usize, ticket: Ticket) -> Vec<EngineAction> {
        let key = (ticket.stream, ticket.attempt);
        self.gateways.insert(key, gateway);
        self.tickets.insert(key, ticket.clone());
        self.handle(now, EngineEvent::Submit(ticket))
    }

    pub fn handle(&mut self, now: Time, event: EngineEvent) -> Vec<EngineAction> {
        self.drive(|engine, out| engine.handle(now, event, out))
    }

    pub fn wake(&mut self, now: Time) -> Vec<EngineAction> {
        self.drive(|engine, out| {
            if engine.deadline().is_some_and(|deadline| deadline <= now) {
                engine.wake(now, out);
            }
        })
    }

    pub fn deadline(&self) -> Option<Time> {
        self.engine.as_ref().and_then(Machine::deadline)
    }

    pub fn gateway_of(&self, stream: StreamId, attempt: Attempt) -> usize {
        self.gateways[&(stream, attempt)]
    }

    pub fn forget_ticket(&mut self, stream: StreamId, attempt: Attempt) {
        self.gateways.remove(&(stream, attempt));
        self.tickets.remove(&(stream, attempt));
    }

    pub fn admitted(&mut self, stream: StreamId, attempt: Attempt, sequence: SequenceId) {
        let ticket = &self.tickets[&(stream, attempt)];
        let running = Running {
            stream,
            tenant: ticket.tenant.0 as usize,
            tokens: ticket.prompt_tokens,
            position: ticket.resumed_tokens,
        };
        self.sequences.insert(sequence, running);
    }

    /// Computes a plan: when it returns, and what comes back. `output_tokens` says where an answer ends by itself.
    pub fn compute(
        &mut self,
        now: Time,
        plan: &StepPlan,
        block_tokens: u32,
        output_tokens: impl Fn(StreamId) -> u32,
    ) -> (Time, StepDone) {
        for sequence in &plan.forget {
            self.sequences.remove(sequence);
        }
        let Computation { parts, returns_at } = self.device.compute(now, plan);
        let elapsed = parts.iter().fold(Span::ZERO, |sum, part| sum + *part);
        self.history.busy += elapsed;
        let mut done = StepDone {
            epoch: plan.epoch,
            step: plan.step,
            elapsed,
            parts: if parts.len() == 1 { Vec::new() } else { parts },
            ..StepDone::default()
        };
        for slice in plan
            .slices
            .iter()
            .filter(|slice| slice.output == SliceOutput::Sample)
        {
            let running = self
                .sequences
                .get_mut(&slice.sequence)
                .expect("a sequence that was admitted");
            running.tokens += 1;
            running.position += 1;
            let is_last = running.position >= output_tokens(running.stream);
            let verdict = if is_last { Verdict::Stop } else { Verdict::Continue };
            done.sampled.push(Sampled {
                sequence: slice.sequence,
                verdict,
            });
            if running.tokens.is_multiple_of(block_tokens) {
                let block = running.tokens / block_tokens - 1;
                let name = generated_block_name(running.tenant, running.stream, block);
                done.sealed.push((slice.sequence, name));
            }
        }
        (returns_at, done)
    }

    fn drive(&mut self, event: impl FnOnce(&mut Engine, &mut Vec<EngineAction>)) -> Vec<EngineAction> {
        let mut out = Vec::new();
        if let Some(engine) = &mut self.engine {
            event(engine, &mut out);
            blocks_conserved::check(engine);
        }
        out
    }
}

impl History {
    fn add(&mut self, load: &Load, pipeline: &PipelineUse) {
        self.pipeline.occupied += pipeline.occupied;
        self.pipeline.least += pipeline.least;
        let computed = &mut self.pipeline.computed;
        computed.resize(pipeline.computed.len(), Span::ZERO);
        for (sum, stage) in computed.iter_mut().zip(&pipeline.computed) {
            *sum += *stage;
        }
        self.steps += load.steps;
        self.preemptions += load.preemptions;
        self.prefix_queried_tokens += load.prefix_queried_tokens;
        self.prefix_hit_tokens += load.prefix_hit_tokens;
        self.computed_tokens += load.computed_tokens;
        self.sampled_tokens += load.sampled_tokens;
    }
}

fn config(scenario: &Scenario, replica: ReplicaId, epoch: Epoch) -> EngineConfig {
    let limits = &scenario.engine;
    EngineConfig {
        block_tokens: limits.block_tokens,
        blocks: limits.blocks,
        context_tokens_max: limits.context_tokens_max,
        sequences_per_stage_max: limits.sequences_max,
        waiting_max: limits.waiting_max,
        stages: scenario.device.stages,
        step_tokens_max: limits.step_tokens_max,
        between_tokens_max: secs(limits.between_tokens_ms / 1e3),
        prompt_step_max: secs(limits.prompt_step_ms / 1e3),
        ..EngineConfig::for_replica(replica, epoch)
    }
}
