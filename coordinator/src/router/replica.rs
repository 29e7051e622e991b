//! What a router knows of one replica.

use super::memory::{Belief, PrefixMemory};
use super::stream::{Answer, Stream};
use crate::cost::{StepCost, StepWork};
use proto::engine::{Load, ReplicaInfo};
use proto::request::PrefixUse;
use proto::{BlockHash, Epoch, Time};

/// Every running sequence computes a token in each step that this stream's answer takes; so long is an answer assumed to
/// be.
const OUTPUT_TOKENS_EACH: u64 = 128;

#[derive(Debug)]
pub(super) struct Replica {
    pub model: String,
    pub info: ReplicaInfo,
    pub load: Load,
    /// Submits sent and neither answered nor refused.
    pub outstanding: u32,
    /// Streams of this router that it serves.
    pub streams: u32,
    /// It said it was busy; nothing new before this. `None` once that moment has been seen.
    pub rests_until: Option<Time>,
    pub intake: Intake,
    /// What it has in its cache, as far as this router can know.
    pub memory: PrefixMemory,
    /// Prompt tokens that it probably has to compute for `outstanding`.
    pub outstanding_tokens: u64,
    /// What `load` cannot know yet.
    since_report: Sent,
    reports: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intake {
    Open,
    /// It ends: what it has it finishes.
    Draining,
}

/// What this router sent since the last report.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    streams: u32,
    /// Prompt tokens to compute.
    tokens: u64,
}

/// What a router thought when it sent a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expected {
    /// Prompt tokens that the replica has to compute.
    pub uncached_tokens: u32,
    belief: Belief,
    /// Reports that had come by then.
    reports: u64,
}

impl Replica {
    pub fn new(model: String, info: ReplicaInfo) -> Replica {
        Replica {
            model,
            info,
            load: Load::default(),
            outstanding: 0,
            streams: 0,
            rests_until: None,
            intake: Intake::Open,
            memory: PrefixMemory::default(),
            outstanding_tokens: 0,
            since_report: Sent::default(),
            reports: 0,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.info.epoch
    }

    /// The longest sequence: bounded by the model and by the pool.
    pub fn context_tokens_max(&self) -> u32 {
        self.info
            .context_tokens_max
            .min(self.info.blocks.saturating_mul(self.info.block_tokens))
    }

    /// How many leading tokens of a prompt it probably has: never all, the last one is always computed.
    pub fn cached_tokens(&self, stream: &Stream) -> u32 {
        self.memory.known(self.reusable(stream)) * self.block_tokens()
    }

    fn reusable<'s>(&self, stream: &'s Stream) -> &'s [BlockHash] {
        let blocks = stream.prompt_tokens().saturating_sub(1) / self.block_tokens();
        let chain = match stream.prefix() {
            PrefixUse::Reuse => stream.chain(),
            PrefixUse::Recompute => &[],
        };
        &chain[..chain.len().min(blocks as usize)]
    }

    fn block_tokens(&self) -> u32 {
        self.info.block_tokens.max(1)
    }

    /// How long it computes what it does not have of a prompt.
    pub fn prompt_secs(&self, stream: &Stream, cached_tokens: u32) -> f64 {
        let count = stream.prompt_tokens().saturating_sub(cached_tokens);
        self.cost().marginal_secs(StepWork::slice(cached_tokens, count))
    }

    /// What a new stream waits for, and what it shares its steps with until its answer is complete. Zero if idle.
    pub fn busy_secs(&self) -> f64 {
        let prompts = self.load.backlog_tokens.saturating_add(self.since_report.tokens);
        let reported = u64::from(self.load.running) + u64::from(self.load.waiting);
        let sequences = reported + u64::from(self.since_report.streams);
        let answers = sequences.max(u64::from(self.streams)) * OUTPUT_TOKENS_EACH;
        let tokens = prompts.max(self.outstanding_tokens).saturating_add(answers);
        self.cost().per_token_secs * tokens as f64
    }

    /// As it says, once it has said anything.
    fn cost(&self) -> StepCost {
        let reported = StepCost::of_load(&self.load);
        if reported.per_token_secs > 0.0 {
            reported
        } else {
            StepCost::PRIOR
        }
    }

    pub fn reported(&mut self, load: Load) {
        self.load = load;
        self.since_report = Sent::default();
        self.reports += 1;
    }

    /// `blocks_max`: how many blocks to remember.
    pub fn sent(&mut self, stream: &Stream, blocks_max: usize) -> Expected {
        let uncached_tokens = stream.prompt_tokens().saturating_sub(self.cached_tokens(stream));
        let belief = self.memory.belief(self.reusable(stream));
        self.memory.send(stream.chain(), blocks_max);
        self.streams += 1;
        self.outstanding += 1;
        self.outstanding_tokens += u64::from(uncached_tokens);
        self.since_report.streams += 1;
        self.since_report.tokens += u64::from(uncached_tokens);
        Expected {
            uncached_tokens,
            belief,
            reports: self.reports,
        }
    }

    /// The first word about a stream: its prompt is computed, and its credit comes back.
    pub fn answered(
        &mut self,
        stream: &Stream,
        expected: Expected,
        cached_tokens: Option<u32>,
        blocks_max: usize,
    ) {
        self.settle(expected);
        let cached_blocks = cached_tokens.map(|tokens| tokens / self.block_tokens());
        self.memory
            .computed(stream.chain(), expected.belief, cached_blocks, blocks_max);
    }

    /// A stream is no longer here.
    pub fn left(&mut self, stream: &Stream, expected: Expected, answer: Answer) {
        self.streams -= 1;
        if expected.reports == self.reports {
            self.since_report.streams -= 1;
        }
        match answer {
            Answer::Begun => {}
            Answer::Outstanding => {
                self.settle(expected);
                self.memory.withdraw(stream.chain());
            }
        }
    }

    /// Asserts that what is outstanding agrees.
    pub fn check(&self) {
        assert!(
            self.outstanding > 0 || self.outstanding_tokens == 0,
            "{} tokens of nothing are outstanding",
            self.outstanding_tokens
        );
        assert!(
            self.since_report.tokens <= self.outstanding_tokens && self.since_report.streams <= self.streams,
            "more was sent since the last report than is known to be there"
        );
        self.memory.check(self.info.blocks as usize);
    }

    /// Nothing of its prompt is still to be computed.
    fn settle(&mut self, expected: Expected) {
        self.outstanding -= 1;
        self.outstanding_tokens -= u64::from(expected.uncached_tokens);
        if expected.reports == self.reports {
            self.since_report.tokens -= u64::from(expected.uncached_tokens);
        }
    }
}
