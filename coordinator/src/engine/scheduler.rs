//! What one step computes.
//!
//! There is no prefill phase and no decode phase. A sequence has `tokens` that are known and `computed` of them; a step
//! lets `computed` catch up with `tokens` inside a budget. A sequence that is one sampled token behind is decoding, one
//! that is further behind has a prompt, and a preempted or resumed one is simply far behind. Chunked prompts, prefix
//! hits and recomputation all follow from that, without a branch of their own.
//!
//! 1. Decoding sequences get their one token each: they have somebody reading along. Pages that are missing are taken
//!    by preemption.
//! 2. What is left of the budget goes to whoever is furthest behind its fair share, best class first: the next chunk of
//!    a running prompt, or the first one of a waiting sequence if it fits.
//!
//! Whatever limits a slice is a small function that returns a cap.

use super::EngineConfig;
use super::blocks::{BlockTable, PrefixHit, Reach};
use super::budget::StepBudget;
use super::forecast::OutputForecast;
use super::sequence::{Phase, Sequence};
use crate::cost::StepCost;
use crate::fairness::TenantClocks;
use proto::step::{Slice, SliceOutput};
use proto::{BlockHash, BlockId, GroupId, SequenceId, TenantId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// All that planning a step may touch.
pub(crate) struct Scheduler<'e> {
    pub now: Time,
    pub config: &'e EngineConfig,
    pub cost: StepCost,
    pub forecast: &'e OutputForecast,
    pub sequences: &'e mut BTreeMap<SequenceId, Sequence>,
    pub blocks: &'e mut BlockTable,
    pub clocks: &'e mut TenantClocks,
}

/// What a step will be.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub slices: Vec<Slice>,
    pub zero: Vec<BlockId>,
    pub preempted: Vec<SequenceId>,
    /// Sequences that run from now on.
    pub admitted: Vec<Admission>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Admission {
    pub sequence: SequenceId,
    /// Tokens that a prefix hit could have spared, and did.
    pub queried_tokens: u32,
    pub hit_tokens: u32,
}

/// Less goes first: class, the tenant's clock, running before waiting, age.
type Order = (u64, u64, u8, SequenceId);

/// What keeps a waiting sequence out of this step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Fits(PrefixHit),
    /// Another sequence is just computing the block that comes next: soon it can be shared.
    WorthWaiting,
    /// Nobody may overtake it, or large sequences would starve.
    NoRoom,
}

/// The rest of a step while it is shared out.
struct Round {
    draft: Draft,
    budget: StepBudget,
    /// Who got a slice: these can no longer be preempted.
    placed: BTreeSet<SequenceId>,
    /// Waiting sequences that were looked at and stay.
    passed_over: BTreeSet<SequenceId>,
    /// Next blocks of the prompts being computed, and the best class that computes them.
    coming: BTreeMap<(TenantId, BlockHash), u64>,
    running: u32,
    /// Blocks that running sequences are expected to need soon.
    growth: u32,
    admission: AdmissionDoor,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AdmissionDoor {
    Open,
    Closed,
}

impl Scheduler<'_> {
    pub fn schedule(mut self) -> Draft {
        let mut round = self.new_round();
        for sequence in self.decoding() {
            self.continue_decoding(sequence, &mut round);
        }
        self.count_running(&mut round);
        while let Some(sequence) = self.next_behind(&round) {
            match self.sequences[&sequence].phase {
                Phase::Running => self.continue_prompt(sequence, &mut round),
                Phase::Waiting => self.consider(sequence, &mut round),
                Phase::Leaving => panic!("sequence {sequence} leaves and no step is running"),
            }
        }
        round.draft
    }

    fn new_round(&self) -> Round {
        let is_anyone_decoding = self.running().any(Sequence::is_decoding);
        let target = if is_anyone_decoding {
            self.config.between_tokens_max
        } else {
            self.config.prompt_step_max
        };
        Round {
            draft: Draft::default(),
            budget: StepBudget::new(self.cost, self.config.step_tokens_max, target),
            placed: BTreeSet::new(),
            passed_over: BTreeSet::new(),
            coming: BTreeMap::new(),
            running: 0,
            growth: 0,
            admission: AdmissionDoor::Open,
        }
    }

    /// After preemption is over: who runs, what they will need, and what they are about to compute.
    fn count_running(&self, round: &mut Round) {
        for sequence in self.running() {
            round.running += 1;
            round.growth += self.growth_of(sequence);
            self.announce(sequence, round);
        }
        if !round.draft.preempted.is_empty() {
            round.admission = AdmissionDoor::Closed;
        }
    }

    fn running(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences
            .values()
            .filter(|sequence| sequence.phase == Phase::Running)
    }

    /// Best class first, then oldest: the first of them always advances, so in the end all do.
    fn decoding(&self) -> Vec<SequenceId> {
        let mut found: Vec<_> = self
            .running()
            .filter(|sequence| sequence.is_decoding() && !sequence.is_held)
            .map(|sequence| (sequence.class_now(self.now), sequence.id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, sequence)| sequence).collect()
    }

    fn continue_decoding(&mut self, sequence: SequenceId, round: &mut Round) {
        while self.sequences[&sequence].phase == Phase::Running {
            let reach = if round.placed.is_empty() {
                Reach::Everything
            } else {
                Reach::Share
            };
            let tokens = self.sequences[&sequence].tokens;
            if let Ok(growth) = self.blocks.grow(sequence, tokens, reach, self.now) {
                round.draft.zero.extend(growth.zero);
                round.budget.spend_on_decoding(tokens - 1);
                self.place(sequence, 1, growth.new_blocks, round);
                return;
            }
            self.preempt_for(sequence, round);
        }
    }

    /// Takes the blocks of one sequence: of the lowest class, there of the tenant that holds most, there the newest.
    /// That may be the one that asks.
    fn preempt_for(&mut self, asking: SequenceId, round: &mut Round) {
        let victim = self
            .running()
            .filter(|sequence| !round.placed.contains(&sequence.id))
            .filter(|sequence| sequence.id != asking || !round.placed.is_empty())
            .max_by_key(|sequence| {
                (
                    sequence.class_now(self.now),
                    self.blocks.owned_by(sequence.tenant),
                    sequence.id,
                )
            })
            .map(|sequence| sequence.id)
            .expect("the whole pool holds any one sequence");
        self.blocks.release(victim, self.now);
        self.sequences
            .get_mut(&victim)
            .expect("a running sequence")
            .preempt();
        round.draft.preempted.push(victim);
    }

    fn next_behind(&self, round: &Round) -> Option<SequenceId> {
        self.sequences
            .values()
            .filter(|sequence| !round.placed.contains(&sequence.id))
            .filter(|sequence| !round.passed_over.contains(&sequence.id) && !sequence.is_held)
            .filter(|sequence| match sequence.phase {
                Phase::Running => true,
                Phase::Waiting => self.admits(round),
                Phase::Leaving => false,
            })
            .map(|sequence| self.order(sequence))
            .min()
            .map(|(_, _, _, sequence)| sequence)
    }

    fn admits(&self, round: &Round) -> bool {
        round.admission == AdmissionDoor::Open && round.running < self.config.sequences_max
    }

    fn order(&self, sequence: &Sequence) -> Order {
        let newcomer = u8::from(sequence.phase == Phase::Waiting);
        (
            sequence.class_now(self.now),
            self.clocks.time(sequence.tenant),
            newcomer,
            sequence.id,
        )
    }

    fn continue_prompt(&mut self, sequence: SequenceId, round: &mut Round) {
        match self.chunk(&self.sequences[&sequence], round) {
            0 => drop(round.passed_over.insert(sequence)),
            count => {
                round
                    .budget
                    .spend_on_prompt(self.sequences[&sequence].computed, count);
                self.place(sequence, count, Vec::new(), round);
            }
        }
    }

    fn consider(&mut self, sequence: SequenceId, round: &mut Round) {
        match self.verdict(&self.sequences[&sequence], round) {
            Verdict::Fits(hit) => self.admit(sequence, hit, round),
            Verdict::WorthWaiting => drop(round.passed_over.insert(sequence)),
            Verdict::NoRoom => round.admission = AdmissionDoor::Closed,
        }
    }

    fn verdict(&self, sequence: &Sequence, round: &Round) -> Verdict {
        let reusable = sequence.reusable_hashes(self.config.block_tokens);
        let hit = self.blocks.prefix(sequence.tenant, reusable);
        if self.is_coming(sequence, reusable.get(hit.blocks as usize), round) {
            return Verdict::WorthWaiting;
        }
        if self.has_room(sequence, hit, round) && round.budget.slice_max(0) > 0 {
            return Verdict::Fits(hit);
        }
        Verdict::NoRoom
    }

    /// Pages for the known tokens now, and for what all running sequences will want soon; never for the whole context.
    fn has_room(&self, sequence: &Sequence, hit: PrefixHit, round: &Round) -> bool {
        let groups = self.config.groups.len() as u32;
        let wanted = self.blocks.needed_for(sequence.tokens) - hit.blocks * groups + hit.unheld;
        if round.running == 0 {
            return wanted <= self.blocks.unheld();
        }
        let soon = wanted + round.growth + self.growth_of(sequence);
        wanted <= self.blocks.available(sequence.tenant, Reach::Share, self.now)
            && soon <= self.blocks.unheld()
    }

    fn admit(&mut self, id: SequenceId, hit: PrefixHit, round: &mut Round) {
        let block_tokens = self.config.block_tokens;
        let reach = if round.running == 0 {
            Reach::Everything
        } else {
            Reach::Share
        };
        let sequence = self.sequences.get_mut(&id).expect("a waiting sequence");
        let reusable = sequence.reusable_hashes(block_tokens);
        let queried_tokens = reusable.len() as u32 * block_tokens;
        let mut new_blocks =
            self.blocks
                .hold_prefix(id, sequence.tenant, &reusable[..hit.blocks as usize], self.now);
        let growth = self
            .blocks
            .grow(id, sequence.tokens, reach, self.now)
            .expect("room was checked");
        new_blocks.extend(growth.new_blocks);
        round.draft.zero.extend(growth.zero);

        let hit_tokens = hit.blocks * block_tokens;
        sequence.phase = Phase::Running;
        sequence.milestones.started.get_or_insert(self.now);
        sequence.computed = hit_tokens;
        sequence.named_blocks = hit.blocks as usize;
        sequence.cached_tokens = sequence.cached_tokens.map(|_| hit_tokens);
        round.draft.admitted.push(Admission {
            sequence: id,
            queried_tokens,
            hit_tokens,
        });

        round.running += 1;
        round.growth += self.growth_of(&self.sequences[&id]);
        self.announce(&self.sequences[&id], round);
        let count = self.chunk(&self.sequences[&id], round).max(1);
        round.budget.spend_on_prompt(hit_tokens, count);
        self.place(id, count, new_blocks, round);
    }

    /// How much of what a sequence is behind fits into this step.
    fn chunk(&self, sequence: &Sequence, round: &Round) -> u32 {
        let caps = [sequence.behind(), round.budget.slice_max(sequence.computed)];
        caps.into_iter().min().unwrap_or(0)
    }

    fn place(&mut self, id: SequenceId, count: u32, new_blocks: Vec<(GroupId, BlockId)>, round: &mut Round) {
        let sequence = &self.sequences[&id];
        round.draft.slices.push(Slice {
            sequence: id,
            adapter: sequence.adapter,
            start: sequence.computed,
            count,
            new_blocks,
            output: output_of(sequence, count),
        });
        round.placed.insert(id);
        self.clocks.charge(sequence.tenant, u64::from(count));
    }

    /// Pool blocks that a running sequence is expected to add to those of its known tokens.
    fn growth_of(&self, sequence: &Sequence) -> u32 {
        let forecast = self.forecast.remaining(sequence.sampled_tokens());
        let tokens = sequence.tokens.saturating_add(forecast).min(sequence.tokens_max);
        self.blocks.needed_for(tokens) - self.blocks.needed_for(sequence.tokens)
    }

    /// Remembers the block that a sequence's prompt completes next.
    fn announce(&self, sequence: &Sequence, round: &mut Round) {
        let index = (sequence.computed / self.config.block_tokens) as usize;
        if let Some(hash) = sequence.hashes.get(index) {
            let class = sequence.class_now(self.now);
            let best = round.coming.entry((sequence.tenant, *hash)).or_insert(class);
            *best = class.min(*best);
        }
    }

    /// Is the block computed by somebody who need not wait longer than `sequence` itself?
    fn is_coming(&self, sequence: &Sequence, hash: Option<&BlockHash>, round: &Round) -> bool {
        hash.and_then(|hash| round.coming.get(&(sequence.tenant, *hash)))
            .is_some_and(|class| *class <= sequence.class_now(self.now))
    }
}

fn output_of(sequence: &Sequence, count: u32) -> SliceOutput {
    if count < sequence.behind() {
        SliceOutput::Nothing
    } else if sequence.is_scored_only() {
        SliceOutput::ScoresOnly
    } else {
        SliceOutput::Sample
    }
}
