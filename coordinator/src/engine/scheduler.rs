//! What one step computes.
//!
//! There is no prefill phase and no decode phase. A sequence has `tokens` that are known and `planned` of them; a step
//! lets `planned` catch up with `tokens` inside a budget. A sequence that is one sampled token behind is decoding, one
//! that is further behind has a prompt, and a preempted or resumed one is simply far behind. Chunked prompts, prefix
//! hits and recomputation all follow from that, without a branch of their own.
//!
//! 1. Decoding sequences get their one token each: they have somebody reading along. Pages that are missing are taken
//!    by preemption.
//! 2. What is left of the budget goes to whoever is furthest behind its fair share, best class first: the next chunk of
//!    a running prompt, or the first one of a waiting sequence if it fits.
//!
//! Whatever limits a slice is a small function that returns a cap.
//!
//! With several stages a step is planned while others are under way, and leaves something for those that follow:
//! decoding sequences and prompts are divided among the stages. What is under way can be neither planned nor preempted.

use super::EngineConfig;
use super::blocks::{BlockTable, PrefixHit, Reach};
use super::budget::StepBudget;
use super::forecast::OutputForecast;
use super::sequence::{Phase, Sequence};
use super::step_target::StepTarget;
use crate::cost::{StepCost, StepWork};
use crate::fairness::TenantClocks;
use proto::step::{Slice, SliceOutput};
use proto::{BlockHash, BlockId, GroupId, SequenceId, Span, TenantId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// All that planning a step may touch.
pub(crate) struct Scheduler<'e> {
    pub now: Time,
    /// Plans under way: fewer than there are stages.
    pub in_flight: u32,
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

/// What came of looking for blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Relief {
    Preempted,
    /// A plan under way holds what would be taken; or nobody can be made to wait for longer than that.
    Awaited,
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
        let decoding = self.decoding();
        let share = self.decoding_share(decoding.len());
        for sequence in decoding {
            if round.placed.len() == share {
                break;
            }
            self.continue_decoding(sequence, &mut round);
        }
        self.count_running(&mut round);
        self.divide_prompts(&mut round);
        while let Some(sequence) = self.next_behind(&round) {
            match self.sequences[&sequence].phase {
                Phase::Running => self.continue_prompt(sequence, &mut round),
                Phase::Waiting => self.consider(sequence, &mut round),
                Phase::Leaving => panic!("sequence {sequence} leaves and was chosen"),
            }
        }
        round.draft
    }

    fn new_round(&self) -> Round {
        Round {
            draft: Draft::default(),
            budget: StepBudget::new(self.cost, self.config.step_tokens_max, self.target())
                .in_rows_of(self.config.rows_at_once),
            placed: BTreeSet::new(),
            passed_over: BTreeSet::new(),
            coming: BTreeMap::new(),
            running: 0,
            growth: 0,
            admission: AdmissionDoor::Open,
        }
    }

    /// Each of several stages takes an equal part of what decodes.
    fn target(&self) -> StepTarget {
        let mut decoding = StepWork::default();
        for sequence in self.running().filter(|sequence| sequence.is_decoding()) {
            decoding += StepWork::slice(sequence.computed, 1);
        }
        if decoding.tokens == 0 {
            return StepTarget::of_prompts(self.config);
        }
        let share = self.cost.marginal_secs(decoding) / f64::from(self.config.stages);
        StepTarget::beside_streams(self.config, Span::from_secs_f64(self.cost.fixed_secs + share))
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
            .filter(|sequence| sequence.is_decoding() && !sequence.is_held && !sequence.is_flying())
            .map(|sequence| (sequence.class_now(self.now), sequence.id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, sequence)| sequence).collect()
    }

    /// How many of the `ready` sequences decode in this step. One step that takes them all would visit one stage after
    /// the other and leave the rest idle; so each takes an equal part of all that decode, under way or not, and no more
    /// of those that are ready than leaves as many for each idle stage.
    fn decoding_share(&self, ready: usize) -> usize {
        let stages = self.config.stages as usize;
        let decoding = self
            .running()
            .filter(|sequence| sequence.is_decoding() && !sequence.is_held)
            .count();
        let idle = stages - self.in_flight as usize;
        decoding.div_ceil(stages).min(ready.div_ceil(idle))
    }

    /// One long prompt is to fill all stages, slice after slice.
    fn divide_prompts(&self, round: &mut Round) {
        if self.config.stages > 1 {
            let behind = self.prompts_behind(round);
            round.budget.divide_prompts(behind, self.config.stages);
        }
    }

    /// Tokens of prompts that running sequences are behind, under way or not, and those of waiting ones that have room.
    /// Counts no further than what would fill every stage's step.
    fn prompts_behind(&self, round: &Round) -> u64 {
        let enough = u64::from(round.budget.slice_max(0)) * u64::from(self.config.stages);
        let mut behind: u64 = self
            .running()
            .filter(|sequence| !sequence.is_decoding() && !sequence.is_held)
            .map(|sequence| u64::from(sequence.behind()))
            .sum();
        let mut places = self.config.sequences_max().saturating_sub(round.running);
        let mut unheld = self.blocks.unheld();
        let waiting = self
            .sequences
            .values()
            .filter(|sequence| sequence.phase == Phase::Waiting && !sequence.is_held);
        for sequence in waiting {
            if behind >= enough || places == 0 || round.admission == AdmissionDoor::Closed {
                break;
            }
            let reusable = sequence.reusable_hashes(self.config.block_tokens);
            let hit = self.blocks.prefix(sequence.tenant, reusable);
            let wanted = self.blocks_wanted(sequence, hit);
            if self.is_coming(sequence, reusable.get(hit.blocks as usize), round) || wanted > unheld {
                continue;
            }
            behind += u64::from(sequence.tokens - hit.blocks * self.config.block_tokens);
            unheld -= wanted;
            places -= 1;
        }
        behind
    }

    fn continue_decoding(&mut self, sequence: SequenceId, round: &mut Round) {
        while self.sequences[&sequence].phase == Phase::Running {
            let reach = if self.must_advance(round) {
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
            match self.preempt_for(sequence, round) {
                Relief::Preempted => {}
                Relief::Awaited => {
                    // Nobody new may take what it waits for.
                    round.admission = AdmissionDoor::Closed;
                    return;
                }
            }
        }
    }

    /// Nothing is under way or placed: who is looked at now has to advance, or nobody ever would.
    fn must_advance(&self, round: &Round) -> bool {
        self.in_flight == 0 && round.placed.is_empty()
    }

    /// Takes the blocks of one sequence: of the lowest class, there of the tenant that holds most, there the newest.
    /// That may be the one that asks. If it is under way, its return is waited for; so does one that asks and is itself
    /// the first to give way, as long as anything is under way: it keeps what it has.
    ///
    /// This cannot go on for ever. Whoever waits is looked at again with the next landing, and nobody new is let in in
    /// that step; at last nothing is under way, and then who asks first takes what it needs.
    fn preempt_for(&mut self, asking: SequenceId, round: &mut Round) -> Relief {
        let victim = self
            .running()
            .filter(|sequence| !round.placed.contains(&sequence.id))
            .filter(|sequence| sequence.id != asking || !self.must_advance(round))
            .max_by_key(|sequence| {
                (
                    sequence.class_now(self.now),
                    self.blocks.owned_by(sequence.tenant),
                    sequence.id,
                )
            })
            .expect("the whole pool holds any one sequence");
        if victim.is_flying() || (victim.id == asking && self.in_flight > 0) {
            return Relief::Awaited;
        }
        let victim = victim.id;
        self.blocks.release(victim, self.now);
        self.sequences
            .get_mut(&victim)
            .expect("a running sequence")
            .preempt();
        round.draft.preempted.push(victim);
        Relief::Preempted
    }

    fn next_behind(&self, round: &Round) -> Option<SequenceId> {
        self.sequences
            .values()
            .filter(|sequence| !round.placed.contains(&sequence.id))
            .filter(|sequence| !round.passed_over.contains(&sequence.id) && !sequence.is_held)
            .filter(|sequence| match sequence.phase {
                Phase::Running => sequence.unplanned() > 0 && !sequence.is_decoding(),
                Phase::Waiting => self.admits(round),
                Phase::Leaving => false,
            })
            .map(|sequence| self.order(sequence))
            .min()
            .map(|(_, _, _, sequence)| sequence)
    }

    fn admits(&self, round: &Round) -> bool {
        round.admission == AdmissionDoor::Open && round.running < self.config.sequences_max()
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
                    .spend_on_prompt(self.sequences[&sequence].planned, count);
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
        let wanted = self.blocks_wanted(sequence, hit);
        if round.running == 0 {
            return wanted <= self.blocks.unheld();
        }
        let soon = wanted + round.growth + self.growth_of(sequence);
        wanted <= self.blocks.available(sequence.tenant, Reach::Share, self.now)
            && soon <= self.blocks.unheld()
    }

    /// Blocks that nobody holds now and the known tokens of a waiting sequence need.
    fn blocks_wanted(&self, sequence: &Sequence, hit: PrefixHit) -> u32 {
        let groups = self.config.groups.len() as u32;
        self.blocks.needed_for(sequence.tokens) - hit.blocks * groups + hit.unheld
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
        sequence.planned = hit_tokens;
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
        round.budget.prompt_slice(sequence.planned, sequence.unplanned())
    }

    fn place(&mut self, id: SequenceId, count: u32, new_blocks: Vec<(GroupId, BlockId)>, round: &mut Round) {
        let sequence = self.sequences.get_mut(&id).expect("a running sequence");
        round.draft.slices.push(Slice {
            sequence: id,
            adapter: sequence.adapter,
            start: sequence.planned,
            count,
            new_blocks,
            output: output_of(sequence, count),
        });
        sequence.planned += count;
        round.placed.insert(id);
        self.clocks.charge(sequence.tenant, u64::from(count));
    }

    /// Pool blocks that a running sequence is expected to add to those of its known tokens.
    fn growth_of(&self, sequence: &Sequence) -> u32 {
        let forecast = self.forecast.remaining(sequence.sampled_tokens());
        let tokens = sequence.tokens.saturating_add(forecast).min(sequence.tokens_max);
        self.blocks.needed_for(tokens) - self.blocks.needed_for(sequence.tokens)
    }

    /// Remembers the blocks of a sequence's prompt that are under way, and the one that is completed next.
    fn announce(&self, sequence: &Sequence, round: &mut Round) {
        let block = |position: u32| (position / self.config.block_tokens) as usize;
        let class = sequence.class_now(self.now);
        let coming = block(sequence.computed)..block(sequence.planned) + 1;
        for hash in sequence.hashes.iter().take(coming.end).skip(coming.start) {
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
    if count < sequence.unplanned() {
        SliceOutput::Nothing
    } else if sequence.is_scored_only() {
        SliceOutput::ScoresOnly
    } else {
        SliceOutput::Sample
    }
}
