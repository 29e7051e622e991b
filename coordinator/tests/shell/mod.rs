//! A model of everything around an engine: ranks that really read and write pages, and clients that count positions.
//!
//! A page remembers for every slot *which prefix* it was computed from. A slice therefore only computes if all pages
//! before it hold exactly its own sequence's past: wrong sharing, early reuse and lost writes all show at once.
//!
//! With several stages, plans wait in a queue, and each is computed when it lands: every stage goes by their order, so
//! that nothing else could be observed.
#![allow(dead_code)] // Each test binary uses its own part.

use coordinator::Machine;
use coordinator::cost::{StepCost, StepWork};
use coordinator::engine::{Engine, EngineAction, EngineConfig, EngineDelivery, EngineEvent};
use proto::engine::{Load, Timing};
use proto::request::{Finish, PrefixUse, Refusal, ServiceClass, Ticket};
use proto::step::{Sampled, Slice, SliceOutput, StepDone, StepPlan, Verdict};
use proto::{
    AdapterId, Attempt, BlockHash, BlockId, Epoch, GroupId, ReplicaId, RequestId, SequenceId, Span, StreamId,
    TenantId, Time,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const BLOCK_TOKENS: u32 = 4;

pub fn config(blocks: u32) -> EngineConfig {
    EngineConfig {
        block_tokens: BLOCK_TOKENS,
        blocks,
        context_tokens_max: 64,
        sequences_per_stage_max: 8,
        waiting_max: 16,
        step_tokens_max: 16,
        ..EngineConfig::for_replica(ReplicaId(0), Epoch(1))
    }
}

/// (sequence, start, count) of every slice of a plan.
pub fn shape(shell: &Shell, plan: usize) -> Vec<(u64, u32, u32)> {
    shell.plans[plan]
        .slices
        .iter()
        .map(|slice| (slice.sequence.0, slice.start, slice.count))
        .collect()
}

pub fn stream(request: u128, choice: u32) -> StreamId {
    StreamId {
        request: RequestId(request),
        choice,
    }
}

/// What a test says of a stream; the rest is ordinary.
#[derive(Clone, Debug)]
pub struct Ask {
    pub stream: StreamId,
    pub attempt: Attempt,
    pub tenant: TenantId,
    pub class: ServiceClass,
    pub prompt: Vec<u32>,
    pub resumed_tokens: u32,
    pub max_new_tokens: u32,
    pub prefix: PrefixUse,
    pub deadline: Option<Time>,
}

/// A prompt of `length` tokens that differs from those of other requests from the first token on.
pub fn ask(request: u128, length: u32, max_new_tokens: u32) -> Ask {
    Ask {
        stream: stream(request, 0),
        attempt: Attempt(0),
        tenant: TenantId(1),
        class: ServiceClass::Default,
        prompt: (0..length).map(|index| request as u32 * 1000 + index).collect(),
        resumed_tokens: 0,
        max_new_tokens,
        prefix: PrefixUse::Reuse,
        deadline: None,
    }
}

impl Ask {
    pub fn tenant(self, tenant: u32) -> Ask {
        Ask {
            tenant: TenantId(tenant),
            ..self
        }
    }

    pub fn class(self, class: ServiceClass) -> Ask {
        Ask { class, ..self }
    }

    pub fn choice(self, choice: u32) -> Ask {
        Ask {
            stream: StreamId {
                choice,
                ..self.stream
            },
            ..self
        }
    }

    pub fn prompt(self, prompt: impl IntoIterator<Item = u32>) -> Ask {
        Ask {
            prompt: prompt.into_iter().collect(),
            ..self
        }
    }

    pub fn deadline(self, deadline: Time) -> Ask {
        Ask {
            deadline: Some(deadline),
            ..self
        }
    }

    pub fn recompute(self) -> Ask {
        Ask {
            prefix: PrefixUse::Recompute,
            ..self
        }
    }

    pub fn ticket(&self) -> Ticket {
        Ticket {
            stream: self.stream,
            attempt: self.attempt,
            tenant: self.tenant,
            class: self.class,
            adapter: AdapterId(0),
            prompt_tokens: self.prompt.len() as u32,
            resumed_tokens: self.resumed_tokens,
            block_hashes: root(self.tenant).chain(&self.prompt, BLOCK_TOKENS as usize),
            max_new_tokens: self.max_new_tokens,
            prefix: self.prefix,
            deadline: self.deadline,
        }
    }
}

fn root(tenant: TenantId) -> BlockHash {
    BlockHash::root(&[tenant.0 as u8; 32], &[0; 32], AdapterId(0), 0)
}

/// What a slot of a page holds: the past it was computed from.
type Kv = BlockHash;

#[derive(Default)]
struct Page {
    slots: [Option<Kv>; BLOCK_TOKENS as usize],
    tenant: Option<TenantId>,
}

struct Held {
    stream: (StreamId, Attempt),
    tenant: TenantId,
    prompt_tokens: usize,
    tokens: Vec<u32>,
    pages: Vec<BlockId>,
    /// Where the next slice begins; not known before the first one, nor after a reset.
    planned: Option<u32>,
    scored: u32,
    prefix: PrefixUse,
}

/// What a client has seen of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    pub positions: u32,
    pub cached_tokens: Option<u32>,
    pub finishes: Vec<Finish>,
    pub timings: Vec<Timing>,
}

pub struct Shell {
    pub engine: Engine,
    pub now: Time,
    pub seen: BTreeMap<(StreamId, Attempt), Seen>,
    pub refused: Vec<(StreamId, Refusal)>,
    pub reports: Vec<Load>,
    pub drained: u32,
    /// How long a step takes.
    pub cost: StepCost,
    /// The plan that lands next.
    pub plan: Option<StepPlan>,
    /// Those that were made after it and have not landed.
    pub later: VecDeque<StepPlan>,
    /// All plans, for tests that look at them.
    pub plans: Vec<StepPlan>,
    /// Streams whose last verdict was to wait.
    pub waits: BTreeSet<(StreamId, Attempt)>,
    asked: BTreeMap<(StreamId, Attempt), Ask>,
    held: BTreeMap<SequenceId, Held>,
    pages: Vec<Page>,
}

impl Shell {
    pub fn new(config: EngineConfig) -> Shell {
        Shell {
            pages: (0..config.blocks).map(|_| Page::default()).collect(),
            engine: Engine::new(config),
            now: Time::ZERO,
            seen: BTreeMap::new(),
            refused: Vec::new(),
            reports: Vec::new(),
            drained: 0,
            cost: StepCost {
                fixed_secs: 10e-3,
                per_token_secs: 0.0,
                per_context_secs: 0.0,
            },
            plan: None,
            later: VecDeque::new(),
            plans: Vec::new(),
            waits: BTreeSet::new(),
            asked: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    pub fn submit(&mut self, ask: Ask) {
        let ticket = ask.ticket();
        self.asked.insert((ask.stream, ask.attempt), ask);
        self.event(EngineEvent::Submit(ticket));
    }

    pub fn cancel(&mut self, stream: StreamId) {
        self.event(EngineEvent::Cancel {
            stream,
            attempt: Attempt(0),
        });
    }

    pub fn event(&mut self, event: EngineEvent) {
        let mut out = Vec::new();
        self.engine.handle(self.now, event, &mut out);
        self.perform(out);
    }

    pub fn wake(&mut self) {
        let mut out = Vec::new();
        self.engine.wake(self.now, &mut out);
        self.perform(out);
    }

    /// The oldest step under way returns, and every sampled token gets the verdict.
    pub fn step(&mut self, verdict: Verdict) {
        self.step_with(|_| verdict);
    }

    pub fn step_with(&mut self, mut verdict: impl FnMut(SequenceId) -> Verdict) {
        let plan = self.plan.take().expect("a step is running");
        self.plan = self.later.pop_front();
        self.now = self.now + self.elapsed(&plan);
        let done = self.compute(&plan, &mut verdict);
        self.event(EngineEvent::StepDone(done));
    }

    /// What the first stream that waits has waited for is there.
    pub fn resume(&mut self) {
        if let Some((stream, attempt)) = self.waits.pop_first() {
            self.event(EngineEvent::Resume { stream, attempt });
        }
    }

    /// Steps until nothing is left to compute or to wait for.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            match self.plan {
                Some(_) => self.step(Verdict::Continue),
                None if self.waits.is_empty() => return,
                None => self.resume(),
            }
        }
        panic!("still running after 10000 steps");
    }

    /// How many plans are under way.
    pub fn in_flight(&self) -> usize {
        usize::from(self.plan.is_some()) + self.later.len()
    }

    pub fn is_flying(&self, sequence: SequenceId) -> bool {
        let flying = self.plan.iter().chain(&self.later);
        flying
            .flat_map(|plan| &plan.slices)
            .any(|slice| slice.sequence == sequence)
    }

    pub fn seen(&self, request: u128) -> &Seen {
        &self.seen[&(stream(request, 0), Attempt(0))]
    }

    /// Prompt and output of the newest sequence that no plan has forgotten.
    pub fn tokens_of_last_stream(&self) -> Vec<u32> {
        self.held.values().last().expect("a sequence").tokens.clone()
    }

    /// After everything has ended: nothing is kept that nobody wants.
    pub fn assert_idle(&self) {
        let load = self.engine.load();
        assert_eq!((load.running, load.waiting), (0, 0));
        assert_eq!(load.blocks_free + load.blocks_cached, load.blocks_total);
        for (key, seen) in &self.seen {
            assert_eq!(seen.finishes.len(), 1, "{key:?} ended {:?}", seen.finishes);
        }
    }

    fn perform(&mut self, out: Vec<EngineAction>) {
        self.engine.check();
        for action in out {
            match action {
                EngineAction::Admitted {
                    stream,
                    attempt,
                    sequence,
                } => self.admitted(stream, attempt, sequence),
                EngineAction::Refuse { stream, refusal, .. } => self.refused.push((stream, refusal)),
                EngineAction::Run(plan) => self.start(plan),
                EngineAction::Deliver(delivery) => self.deliver(delivery),
                EngineAction::Report(load) => self.reports.push(load),
                EngineAction::Drained => self.drained += 1,
            }
        }
        self.check_busy();
    }

    /// A stage is idle only if nobody can use it: all that could go on with the pages it has is in a plan.
    fn check_busy(&self) {
        let resets: u64 = self.plans.iter().map(|plan| plan.reset.len() as u64).sum();
        let is_any_reset_untold = self.engine.load().preemptions > resets;
        if self.in_flight() as u32 == self.engine.config().stages || is_any_reset_untold {
            return;
        }
        for (sequence, held) in &self.held {
            let known = held.tokens.len() as u32;
            let has_pages = held.pages.len() as u32 * BLOCK_TOKENS >= known;
            let is_behind = held.planned.is_some_and(|planned| planned < known);
            let has_ended = !self.seen[&held.stream].finishes.is_empty();
            assert!(
                !(is_behind && has_pages) || has_ended || self.waits.contains(&held.stream),
                "{sequence} could go on and a stage is idle"
            );
        }
    }

    fn admitted(&mut self, stream: StreamId, attempt: Attempt, sequence: SequenceId) {
        let ask = &self.asked[&(stream, attempt)];
        let held = Held {
            stream: (stream, attempt),
            tenant: ask.tenant,
            prompt_tokens: ask.prompt.len(),
            tokens: ask.prompt.clone(),
            pages: Vec::new(),
            planned: None,
            scored: 0,
            prefix: ask.prefix,
        };
        assert!(
            self.held.insert(sequence, held).is_none(),
            "sequence {sequence} was used before"
        );
        let before = self.seen.insert((stream, attempt), Seen::default());
        assert!(before.is_none(), "{stream} was admitted twice");
    }

    fn deliver(&mut self, delivery: EngineDelivery) {
        let ask = &self.asked[&(delivery.stream, delivery.attempt)];
        let seen = self
            .seen
            .get_mut(&(delivery.stream, delivery.attempt))
            .expect("only admitted streams are served");
        assert!(
            seen.finishes.is_empty(),
            "{} is served after its end",
            delivery.stream
        );
        let is_first = seen.cached_tokens.is_none();
        assert_eq!(
            delivery.cached_tokens.is_some(),
            is_first,
            "cached tokens come first, and once"
        );
        seen.cached_tokens = seen.cached_tokens.or(delivery.cached_tokens);
        if let Some(position) = delivery.position {
            assert_eq!(
                position.0,
                ask.resumed_tokens + seen.positions,
                "positions of {}",
                delivery.stream
            );
            seen.positions += 1;
        }
        assert!(seen.positions <= ask.max_new_tokens);
        seen.finishes.extend(delivery.finish);
        seen.timings.extend(delivery.timing);
        let held = &self.held[&delivery.sequence];
        let scored_all = held.prefix == PrefixUse::Reuse || held.scored as usize >= held.prompt_tokens;
        assert!(
            scored_all || seen.positions == 0,
            "a token before the prompt's scores were complete"
        );
    }

    fn start(&mut self, plan: StepPlan) {
        let stages = self.engine.config().stages as usize;
        assert!(self.in_flight() < stages, "more plans than stages");
        self.check_shape(&plan);
        plan.forget.iter().for_each(|sequence| {
            self.held.remove(sequence).expect("a sequence is forgotten once");
        });
        for sequence in &plan.reset {
            let held = self.held.get_mut(sequence).unwrap();
            held.pages.clear();
            held.planned = None;
        }
        plan.slices.iter().for_each(|slice| self.take_slice(slice));
        self.plans.push(plan.clone());
        match self.plan {
            None => self.plan = Some(plan),
            Some(_) => self.later.push_back(plan),
        }
    }

    fn check_shape(&self, plan: &StepPlan) {
        let config = self.engine.config();
        assert_eq!(plan.epoch, config.epoch);
        assert_eq!(plan.step.0, self.plans.len() as u64);
        assert!(!plan.slices.is_empty() && plan.slices.len() <= config.sequences_max() as usize);
        let sequences: BTreeSet<SequenceId> = plan.slices.iter().map(|slice| slice.sequence).collect();
        assert_eq!(sequences.len(), plan.slices.len(), "two slices of one sequence");
        let tokens: u32 = plan.slices.iter().map(|slice| slice.count).sum();
        assert!(tokens <= config.step_tokens_max, "{tokens} tokens in a step");
        for sequence in &sequences {
            let stream = self.held[sequence].stream;
            assert!(
                !self.waits.contains(&stream),
                "{stream:?} is planned while it waits"
            );
        }
        for sequence in plan.forget.iter().chain(&plan.reset) {
            assert!(
                !self.is_flying(*sequence),
                "{sequence} is dropped while it is computed"
            );
        }
        for sequence in &plan.forget {
            assert!(
                !sequences.contains(sequence),
                "{sequence} is dropped and computed"
            );
        }
        // With several stages, one may be preempted before a plan says so, and return with the plan that does.
        let resets_come_alone = config.stages == 1;
        let returns = plan
            .reset
            .iter()
            .find(|sequence| resets_come_alone && sequences.contains(sequence));
        assert_eq!(returns, None, "dropped and computed");
    }

    /// All that must be known when a plan is made: nobody waits for the plans before it.
    fn take_slice(&mut self, slice: &Slice) {
        let held = self
            .held
            .get_mut(&slice.sequence)
            .expect("a slice of a known sequence");
        let blocks = slice.new_blocks.iter().map(|(_, block)| *block);
        held.pages.extend(blocks);
        assert!(
            held.planned.is_none_or(|planned| planned == slice.start),
            "{slice:?} follows on {:?}",
            held.planned
        );
        held.planned = Some(slice.start + slice.count);
        let end = slice.start + slice.count;
        assert!(slice.count > 0 && end as usize <= held.tokens.len(), "{slice:?}");
        assert!(
            held.pages.len() as u32 * BLOCK_TOKENS >= end,
            "pages of {slice:?}"
        );
        let reaches_end = end as usize == held.tokens.len();
        assert_eq!(reaches_end, slice.output != SliceOutput::Nothing, "{slice:?}");
    }

    fn compute(&mut self, plan: &StepPlan, verdict: &mut impl FnMut(SequenceId) -> Verdict) -> StepDone {
        let (mut sampled, mut sealed) = (Vec::new(), Vec::new());
        plan.zero
            .iter()
            .for_each(|block| self.pages[block.0 as usize] = Page::default());
        plan.slices.iter().for_each(|slice| self.own_pages(slice));
        plan.slices.iter().for_each(|slice| self.write_pages(slice));
        for slice in &plan.slices {
            if slice.output == SliceOutput::Sample {
                let verdict = verdict(slice.sequence);
                sampled.push(Sampled {
                    sequence: slice.sequence,
                    verdict,
                });
                match verdict {
                    Verdict::Wait => self.wait(slice),
                    _sampled => {
                        sealed.extend(self.sample(slice.sequence).map(|hash| (slice.sequence, hash)));
                    }
                }
            }
        }
        StepDone {
            epoch: plan.epoch,
            step: plan.step,
            elapsed: self.elapsed(plan),
            parts: self.parts(plan),
            sampled,
            sealed,
        }
    }

    fn elapsed(&self, plan: &StepPlan) -> Span {
        let mut work = StepWork::default();
        plan.slices
            .iter()
            .for_each(|slice| work += StepWork::slice(slice.start, slice.count));
        Span::from_secs_f64(self.cost.secs(work))
    }

    /// Equal ones, but for what does not divide.
    fn parts(&self, plan: &StepPlan) -> Vec<Span> {
        let (elapsed, stages) = (self.elapsed(plan).0, u64::from(self.engine.config().stages));
        match stages {
            1 => Vec::new(),
            _ => (0..stages)
                .map(|stage| Span(elapsed / stages + u64::from(stage < elapsed % stages)))
                .collect(),
        }
    }

    /// The slice's last position is due again, unless nobody wants it any more.
    fn wait(&mut self, slice: &Slice) {
        let held = self.held.get_mut(&slice.sequence).unwrap();
        held.planned = Some(slice.start + slice.count - 1);
        self.waits.insert(held.stream);
    }

    fn own_pages(&mut self, slice: &Slice) {
        let tenant = self.held[&slice.sequence].tenant;
        for (group, block) in &slice.new_blocks {
            assert_eq!(*group, GroupId(0));
            let page = &mut self.pages[block.0 as usize];
            assert!(
                page.tenant.is_none_or(|last| last == tenant),
                "{block} was not zeroed"
            );
            page.tenant = Some(tenant);
        }
    }

    fn write_pages(&mut self, slice: &Slice) {
        let held = self.held.get_mut(&slice.sequence).unwrap();
        let pasts = pasts(held.tenant, &held.tokens);
        let (start, end) = (slice.start as usize, (slice.start + slice.count) as usize);
        for (position, past) in pasts.iter().enumerate().take(end) {
            let block = held.pages[position / BLOCK_TOKENS as usize];
            let slot = &mut self.pages[block.0 as usize].slots[position % BLOCK_TOKENS as usize];
            if position >= start {
                *slot = Some(*past);
            }
            assert_eq!(
                slot.as_ref(),
                Some(past),
                "position {position} of {slice:?} in page {block}"
            );
        }
        if held.prefix == PrefixUse::Recompute {
            assert!(
                slice.start <= held.scored,
                "positions without scores before {slice:?}"
            );
            held.scored = held.scored.max(slice.start + slice.count);
        }
    }

    /// The next token is a function of the past, so that equal prompts continue equally and can share again.
    fn sample(&mut self, sequence: SequenceId) -> Option<BlockHash> {
        let held = self.held.get_mut(&sequence).unwrap();
        held.tokens
            .push(pasts(held.tenant, &held.tokens).last().unwrap().0 as u32);
        let chain = root(held.tenant).chain(&held.tokens, BLOCK_TOKENS as usize);
        held.tokens
            .len()
            .is_multiple_of(BLOCK_TOKENS as usize)
            .then(|| *chain.last().unwrap())
    }
}

/// For every position, what its KV depends on.
fn pasts(tenant: TenantId, tokens: &[u32]) -> Vec<Kv> {
    root(tenant).chain(tokens, 1)
}
