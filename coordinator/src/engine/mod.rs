//! The engine of one replica: what each step computes, and who owns which page of KV cache.

mod blocks;
mod budget;
mod config;
mod counters;
mod flight;
mod forecast;
mod pipeline;
mod scheduler;
mod sequence;
mod step_target;
mod unhindered;

pub use blocks::{BlockTable, Full, GroupSpec, Growth, PrefixHit, Reach};
pub use config::{EngineConfig, PROMPT_STEP_MAX, STEP_ROOM_LEAST, STEP_TOKENS_MAX, prompt_step_through};
pub(crate) use config::{OUTPUT_TOKENS_EACH, retry_after};

use crate::Machine;
use crate::cost::{CostFit, StepCost};
use crate::fairness::TenantClocks;
use counters::Counters;
use flight::Flight;
use forecast::OutputForecast;
use pipeline::Pipeline;
use proto::engine::{Load, PipelineUse, Timing};
use proto::request::{Finish, Refusal, Ticket};
use proto::step::{StepDone, StepPlan};
use proto::{Attempt, Position, SequenceId, StepId, StreamId, Time};
use scheduler::{Draft, Scheduler};
use sequence::{Phase, Sequence};
use std::collections::{BTreeMap, BTreeSet};

/// What an engine hears. Tokens stay with the shell around it.
#[derive(Clone, PartialEq, Debug)]
pub enum EngineEvent {
    Submit(Ticket),
    Cancel {
        stream: StreamId,
        attempt: Attempt,
    },
    StepDone(StepDone),
    /// What [`proto::step::Verdict::Wait`] waited for is there.
    Resume {
        stream: StreamId,
        attempt: Attempt,
    },
    /// Take nothing new; say `Drained` once nothing runs.
    Drain,
}

/// What an engine wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum EngineAction {
    /// From now on the shell keeps the stream's tokens under this name, until a plan forgets it.
    Admitted {
        stream: StreamId,
        attempt: Attempt,
        sequence: SequenceId,
    },
    Refuse {
        stream: StreamId,
        attempt: Attempt,
        refusal: Refusal,
    },
    /// Compute this, after all plans before it. With several stages further plans come before its `StepDone`: as many are
    /// under way as there are stages.
    Run(StepPlan),
    Deliver(EngineDelivery),
    Report(Load),
    Drained,
}

/// News of a stream, without the contents: the shell adds token and scores.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EngineDelivery {
    pub stream: StreamId,
    pub attempt: Attempt,
    pub sequence: SequenceId,
    /// Set with a stream's first delivery.
    pub cached_tokens: Option<u32>,
    /// Where the token just sampled belongs; `None` when there is none with this delivery.
    pub position: Option<Position>,
    pub finish: Option<Finish>,
    /// With the first token and with the last delivery.
    pub timing: Option<Timing>,
}

/// The decider of one replica.
///
/// An admitted stream gets exactly one delivery with a `finish`, and positions without gap or repeat until then. At
/// most [`EngineConfig::stages`] plans are under way at any time, and never fewer while something could advance; they
/// return in the order in which they were made. Events that name an unknown stream, another attempt, another epoch, or
/// another step than the oldest under way are without effect.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    /// By arrival: ids are given out in order.
    sequences: BTreeMap<SequenceId, Sequence>,
    /// The sequence that serves a stream now; none that leaves.
    streams: BTreeMap<StreamId, SequenceId>,
    blocks: BlockTable,
    clocks: TenantClocks,
    forecast: OutputForecast,
    cost: CostFit,
    /// The plans that the ranks are computing.
    pipeline: Pipeline,
    /// For the next plan.
    forget: Vec<SequenceId>,
    /// For the next plan too: preempted when that could not start after all.
    reset: Vec<SequenceId>,
    deadlines: BTreeSet<(Time, SequenceId)>,
    counters: Counters,
    next_sequence: u64,
    next_step: u64,
    intake: Intake,
}

/// What happens to new work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Intake {
    Open,
    /// Refuse it; `Drained` is due when nothing is left.
    Draining,
    Drained,
}

impl Machine for Engine {
    type Event = EngineEvent;
    type Action = EngineAction;

    fn handle(&mut self, now: Time, event: EngineEvent, out: &mut Vec<EngineAction>) {
        match event {
            EngineEvent::Submit(ticket) => self.submit(now, ticket, out),
            EngineEvent::Cancel { stream, attempt } => self.cancel(now, stream, attempt, out),
            EngineEvent::StepDone(done) => self.step_done(now, done, out),
            EngineEvent::Resume { stream, attempt } => self.resume(stream, attempt),
            EngineEvent::Drain => self.intake = Intake::Draining,
        }
        self.settle(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<EngineAction>) {
        self.expire(now, out);
        self.settle(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let expiry = self.deadlines.first().map(|(time, _)| *time);
        expiry.into_iter().chain(self.counters.report_due()).min()
    }
}

impl Engine {
    pub fn new(config: EngineConfig) -> Engine {
        config.check();
        Engine {
            sequences: BTreeMap::new(),
            streams: BTreeMap::new(),
            blocks: BlockTable::new(config.blocks, config.block_tokens, config.groups.clone()),
            clocks: TenantClocks::default(),
            forecast: OutputForecast::default(),
            cost: match config.cost_measured {
                Some(cost) => CostFit::measured(cost),
                None => CostFit::new(StepCost::PRIOR),
            },
            pipeline: Pipeline::new(config.stages),
            forget: Vec::new(),
            reset: Vec::new(),
            deadlines: BTreeSet::new(),
            counters: Counters::default(),
            next_sequence: 0,
            next_step: 0,
            intake: Intake::Open,
            config,
        }
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// How well the stages have been kept busy.
    pub fn pipeline(&self) -> &PipelineUse {
        self.pipeline.usage()
    }

    /// How busy it is now, as the next report will say.
    ///
    /// The cost of a step is told so that forecasts made of it come true with all stages at work. With S of them, S plans
    /// overlap, so that working off prompts takes a part of 1/S of what their plans cost. A round in which B sequences get
    /// a token each is S plans of B/S that follow one another closely: it takes as long as one of them is under way,
    /// fixed + per_token · B/S. Both is what a replica of one stage would need whose marginal costs are a part of 1/S and
    /// whose fixed cost is the same. That takes the stages for equally fast, where the slowest bounds what they really do,
    /// and is too hopeful while there are fewer sequences than stages.
    pub fn load(&self) -> Load {
        let cost = self.cost.cost();
        let stages = f64::from(self.config.stages);
        let live = || {
            self.sequences
                .values()
                .filter(|sequence| sequence.phase != Phase::Leaving)
        };
        let waiting = live().filter(|sequence| sequence.phase == Phase::Waiting).count();
        Load {
            running: (live().count() - waiting) as u32,
            waiting: waiting as u32,
            backlog_tokens: live()
                .filter(|sequence| !sequence.is_decoding())
                .map(|sequence| u64::from(sequence.behind()))
                .sum(),
            blocks_total: self.blocks.total(),
            blocks_free: self.blocks.free(),
            blocks_cached: self.blocks.cached(),
            step_fixed_secs: cost.fixed_secs,
            step_per_token_secs: cost.per_token_secs / stages,
            step_per_context_secs: cost.per_context_secs / stages,
            ..self.counters.load()
        }
    }

    /// Asserts all that must hold between events: run after each in tests and in the simulator.
    pub fn check(&self) {
        self.blocks.check();
        for (id, sequence) in &self.sequences {
            assert!(
                sequence.planned <= sequence.tokens && sequence.tokens <= sequence.tokens_max,
                "{sequence:?}"
            );
            let serves = self.streams.get(&sequence.stream) == Some(id);
            assert_eq!(serves, sequence.phase != Phase::Leaving, "{sequence:?}");
            self.check_flying(sequence);
        }
        assert!(
            !self.sequences.is_empty() || self.blocks.unheld() == self.blocks.total(),
            "blocks leaked"
        );
    }

    fn check_flying(&self, sequence: &Sequence) {
        let mut end = sequence.computed;
        for (slice_start, slice_end) in self.pipeline.spans_of(sequence.id) {
            assert_eq!(slice_start, end, "a slice does not follow on: {sequence:?}");
            end = slice_end;
        }
        assert_eq!(end, sequence.planned, "{sequence:?}");
        assert!(
            sequence.is_flying() || sequence.phase != Phase::Leaving,
            "{sequence:?} leaves and nothing holds it"
        );
        let is_covered = self.blocks.needed_for(sequence.tokens) <= self.blocks.held_by(sequence.id);
        let is_ready = sequence.phase == Phase::Running && !sequence.is_held && sequence.unplanned() > 0;
        assert!(
            !(is_ready && is_covered && self.pipeline.has_room()),
            "{sequence:?} could advance and a stage is idle"
        );
    }

    fn submit(&mut self, now: Time, ticket: Ticket, out: &mut Vec<EngineAction>) {
        let (stream, attempt) = (ticket.stream, ticket.attempt);
        if let Some(current) = self.streams.get(&stream) {
            let current = &self.sequences[current];
            if current.attempt >= attempt {
                return;
            }
            // The gateway gave that attempt up; this is the one it listens to.
            self.end(current.id, now, None, Finish::Cancelled, out);
        }
        match self.refusal(&ticket) {
            Some(refusal) => out.push(EngineAction::Refuse {
                stream,
                attempt,
                refusal,
            }),
            None => self.take(now, ticket, out),
        }
    }

    fn take(&mut self, now: Time, ticket: Ticket, out: &mut Vec<EngineAction>) {
        let id = SequenceId(self.next_sequence);
        self.next_sequence += 1;
        let is_computable = ticket.prompt_tokens > 0 && ticket.resumed_tokens <= ticket.prompt_tokens;
        let context = self.context_tokens_max();
        let sequence = Sequence::new(id, ticket, context, self.config.block_tokens, now);
        out.push(EngineAction::Admitted {
            stream: sequence.stream,
            attempt: sequence.attempt,
            sequence: id,
        });
        self.clocks.join(sequence.tenant);
        self.deadlines
            .extend(sequence.deadline.map(|deadline| (deadline, id)));
        self.streams.insert(sequence.stream, id);
        self.sequences.insert(id, sequence);
        if !is_computable {
            self.end(id, now, None, Finish::Failed, out);
        }
    }

    fn refusal(&self, ticket: &Ticket) -> Option<Refusal> {
        let tokens = ticket.prompt_tokens.saturating_add(ticket.max_new_tokens.min(1));
        let tokens_max = self.context_tokens_max();
        if self.intake != Intake::Open {
            Some(Refusal::Draining)
        } else if tokens > tokens_max {
            Some(Refusal::TooLong { tokens, tokens_max })
        } else if self.waiting() >= self.config.waiting_max {
            Some(Refusal::Busy {
                retry_after: self.config.retry_after(&self.load()),
            })
        } else {
            None
        }
    }

    /// The longest sequence: bounded by the model and by the pool.
    fn context_tokens_max(&self) -> u32 {
        self.config.context_tokens_max.min(self.blocks.tokens_max())
    }

    fn waiting(&self) -> u32 {
        self.sequences
            .values()
            .filter(|sequence| sequence.phase == Phase::Waiting)
            .count() as u32
    }

    fn cancel(&mut self, now: Time, stream: StreamId, attempt: Attempt, out: &mut Vec<EngineAction>) {
        if let Some(id) = self.streams.get(&stream)
            && self.sequences[id].attempt == attempt
        {
            self.end(*id, now, None, Finish::Cancelled, out);
        }
    }

    fn resume(&mut self, stream: StreamId, attempt: Attempt) {
        if let Some(id) = self.streams.get(&stream) {
            let sequence = self.sequences.get_mut(id).expect("a stream has its sequence");
            if sequence.attempt == attempt {
                sequence.resume();
            }
        }
    }

    fn expire(&mut self, now: Time, out: &mut Vec<EngineAction>) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.end(id, now, None, Finish::Expired, out);
        }
    }

    /// The last delivery of a sequence. Its blocks go back at once, or when the last step that computes it returns.
    fn end(
        &mut self,
        id: SequenceId,
        now: Time,
        position: Option<Position>,
        finish: Finish,
        out: &mut Vec<EngineAction>,
    ) {
        let sequence = self.sequences.get_mut(&id).expect("an ending sequence");
        out.push(EngineAction::Deliver(sequence.delivery(
            now,
            position,
            Some(finish),
        )));
        self.streams.remove(&sequence.stream);
        self.clocks.leave(sequence.tenant);
        if let Some(deadline) = sequence.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if sequence.is_flying() {
            sequence.phase = Phase::Leaving;
        } else {
            self.drop_sequence(id, now);
        }
    }

    /// Its blocks may go to another sequence with the next plan, whatever is under way: nothing under way belongs to this
    /// sequence any more, and every stage computes plans in order, so that none writes for the next owner too early.
    fn drop_sequence(&mut self, id: SequenceId, now: Time) {
        self.blocks.release(id, now);
        self.sequences.remove(&id);
        self.reset.retain(|sequence| *sequence != id);
        self.forget.push(id);
    }

    fn step_done(&mut self, now: Time, done: StepDone, out: &mut Vec<EngineAction>) {
        if done.epoch != self.config.epoch {
            return;
        }
        let Some(flight) = self.pipeline.land(now, &done) else {
            return;
        };
        self.cost.observe(flight.work(), done.elapsed);
        self.counters.step_done(&flight);
        for landing in flight.land(done) {
            self.land(now, landing, out);
        }
    }

    /// One slice has been computed.
    fn land(&mut self, now: Time, landing: flight::Landing, out: &mut Vec<EngineAction>) {
        let id = landing.sequence;
        let sequence = self
            .sequences
            .get_mut(&id)
            .expect("a sequence stays while it is being computed");
        sequence.computed += landing.count;
        if sequence.phase == Phase::Leaving {
            if !sequence.is_flying() {
                self.drop_sequence(id, now);
            }
            return;
        }
        let (position, finish) = landing.outcome(sequence);
        landing
            .sealed
            .into_iter()
            .for_each(|hash| sequence.seal(hash, self.config.block_tokens));
        self.name_computed(id);
        let sequence = self.sequences.get_mut(&id).expect("still there");
        match finish {
            Some(finish) => {
                if matches!(finish, Finish::Stop | Finish::Length) && !sequence.is_scored_only() {
                    self.forecast.observe(sequence.sampled_tokens());
                }
                self.end(id, now, position, finish, out);
            }
            None if position.is_some() => {
                out.push(EngineAction::Deliver(sequence.delivery(now, position, None)));
            }
            None => {}
        }
    }

    /// Tells the table of blocks that are full and computed since the last time.
    fn name_computed(&mut self, id: SequenceId) {
        let sequence = self.sequences.get_mut(&id).expect("a computed sequence");
        let full = (sequence.computed / self.config.block_tokens) as usize;
        for index in sequence.named_blocks..full.min(sequence.hashes.len()) {
            self.blocks.name(id, index, sequence.hashes[index]);
            sequence.named_blocks = index + 1;
        }
    }

    /// After every event: start steps while stages are idle, report, finish draining.
    fn settle(&mut self, now: Time, out: &mut Vec<EngineAction>) {
        while self.pipeline.has_room() && !self.sequences.is_empty() {
            let Some(plan) = self.next_plan(now) else {
                break;
            };
            out.push(EngineAction::Run(plan));
        }
        self.finish_draining(out);
        if self.counters.take_report(now, self.sequences.is_empty()) {
            out.push(EngineAction::Report(self.load()));
        }
    }

    /// What can advance now, if anything can.
    fn next_plan(&mut self, now: Time) -> Option<StepPlan> {
        let draft = Scheduler {
            now,
            in_flight: self.pipeline.in_flight(),
            config: &self.config,
            cost: self.cost.cost(),
            forecast: &self.forecast,
            sequences: &mut self.sequences,
            blocks: &mut self.blocks,
            clocks: &mut self.clocks,
        }
        .schedule();
        self.counters.scheduled(&draft);
        if draft.slices.is_empty() {
            let is_any_held = self.sequences.values().any(|sequence| sequence.is_held);
            assert!(
                is_any_held || !self.pipeline.is_empty(),
                "there are sequences and none of them can advance"
            );
            self.reset.extend(draft.preempted);
            return None;
        }
        Some(self.launch(now, draft))
    }

    fn launch(&mut self, now: Time, draft: Draft) -> StepPlan {
        let step = StepId(self.next_step);
        self.next_step += 1;
        self.pipeline.launch(now, Flight::new(step, &draft.slices));
        let mut reset = std::mem::take(&mut self.reset);
        reset.extend(draft.preempted);
        StepPlan {
            epoch: self.config.epoch,
            step,
            forget: std::mem::take(&mut self.forget),
            reset,
            zero: draft.zero,
            slices: draft.slices,
        }
    }

    fn finish_draining(&mut self, out: &mut Vec<EngineAction>) {
        if self.intake == Intake::Draining && self.sequences.is_empty() {
            self.intake = Intake::Drained;
            out.push(EngineAction::Drained);
        }
    }
}
