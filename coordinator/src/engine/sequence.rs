//! A sequence: one stream inside this engine.

use super::EngineDelivery;
use proto::engine::Timing;
use proto::request::{Finish, PrefixUse, ServiceClass, Ticket};
use proto::{AdapterId, Attempt, BlockHash, Position, SequenceId, Span, StreamId, TenantId, Time};

/// A sequence that waits this long is treated as the next better class, so that no class starves.
const PROMOTED_AFTER: Span = Span::from_secs(5);

/// What the engine knows of a stream: lengths and hashes.
///
/// The life of a sequence:
///
/// 1. **Waiting**: it holds no block.
/// 2. **Running**: its blocks cover all known tokens but the last sampled one. `planned` catches up with `tokens`, and
///    `computed` with `planned` as plans return. A prompt may have slices in several plans under way, one after the
///    other; nothing follows a slice that samples before it has returned, because the next token is not known.
/// 3. Preempted, it is **Waiting** again with `computed` 0 and all its tokens, generated ones included.
/// 4. **Held**, running or waiting, it is not planned: its last position was computed and no token could be chosen yet.
///    That position is computed again when the shell says so; the bits are the same.
/// 5. **Leaving**: it ended while slices of it were under way. Nothing of it is delivered any more; its blocks go back
///    when the last of them returns.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub id: SequenceId,
    pub stream: StreamId,
    pub attempt: Attempt,
    pub tenant: TenantId,
    pub class: ServiceClass,
    pub adapter: AdapterId,
    pub prefix: PrefixUse,
    pub arrived: Time,
    pub milestones: Milestones,
    pub deadline: Option<Time>,
    pub phase: Phase,
    pub is_held: bool,
    pub prompt_tokens: u32,
    /// Where the first token it samples belongs in the stream's output.
    pub position_first: u32,
    /// Known tokens: prompt and sampled.
    pub tokens: u32,
    /// It ends when it has this many.
    pub tokens_max: u32,
    /// Positions whose KV is in its blocks.
    pub computed: u32,
    /// Positions that are computed, or will be by plans under way.
    pub planned: u32,
    /// Hashes of the leading full blocks of known tokens, as far as they are known.
    pub hashes: Vec<BlockHash>,
    /// Blocks whose hash the table has been told.
    pub named_blocks: usize,
    /// To be told with the first delivery.
    pub cached_tokens: Option<u32>,
}

/// When something happened to a sequence for the first time; a preemption does not count anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Milestones {
    /// It was given blocks.
    pub started: Option<Time>,
    pub first_token: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Waiting,
    Running,
    Leaving,
}

impl Sequence {
    pub fn new(
        id: SequenceId,
        ticket: Ticket,
        context_tokens_max: u32,
        block_tokens: u32,
        now: Time,
    ) -> Sequence {
        let mut hashes = ticket.block_hashes;
        hashes.truncate((ticket.prompt_tokens / block_tokens) as usize);
        Sequence {
            id,
            stream: ticket.stream,
            attempt: ticket.attempt,
            tenant: ticket.tenant,
            class: ticket.class,
            adapter: ticket.adapter,
            prefix: ticket.prefix,
            arrived: now,
            milestones: Milestones::default(),
            deadline: ticket.deadline,
            phase: Phase::Waiting,
            is_held: false,
            prompt_tokens: ticket.prompt_tokens,
            position_first: ticket.resumed_tokens,
            tokens: ticket.prompt_tokens,
            tokens_max: ticket
                .prompt_tokens
                .saturating_add(ticket.max_new_tokens)
                .min(context_tokens_max),
            computed: 0,
            planned: 0,
            hashes,
            named_blocks: 0,
            cached_tokens: Some(0),
        }
    }

    /// Tokens that are known and not computed.
    pub fn behind(&self) -> u32 {
        self.tokens - self.computed
    }

    /// Tokens that are known and in no plan yet.
    pub fn unplanned(&self) -> u32 {
        self.tokens - self.planned
    }

    /// A plan under way computes a slice of it.
    pub fn is_flying(&self) -> bool {
        self.planned > self.computed
    }

    pub fn sampled_tokens(&self) -> u32 {
        self.tokens - self.prompt_tokens
    }

    /// Only the token that was sampled last is missing.
    pub fn is_decoding(&self) -> bool {
        self.behind() == 1 && self.sampled_tokens() > 0
    }

    /// Only the prompt's scores are wanted.
    pub fn is_scored_only(&self) -> bool {
        self.tokens_max == self.prompt_tokens
    }

    /// Its class, one better for every [`PROMOTED_AFTER`] since it came.
    pub fn class_now(&self, now: Time) -> u64 {
        let class: u64 = match self.class {
            ServiceClass::Priority => 0,
            ServiceClass::Default => 1,
            ServiceClass::Flex => 2,
        };
        class.saturating_sub(now.since(self.arrived).0 / PROMOTED_AFTER.0)
    }

    /// Hashes that may stand in for computing. At least the last token is always computed: its logits are needed.
    pub fn reusable_hashes(&self, block_tokens: u32) -> &[BlockHash] {
        match self.prefix {
            PrefixUse::Recompute => &[],
            PrefixUse::Reuse => {
                let blocks_max = (self.tokens.saturating_sub(1) / block_tokens) as usize;
                &self.hashes[..self.hashes.len().min(blocks_max)]
            }
        }
    }

    /// A block became full of known tokens by the one sampled last. Hashes that do not continue the chain (because
    /// an earlier one is unknown) are of no use and dropped.
    pub fn seal(&mut self, hash: BlockHash, block_tokens: u32) {
        if (self.hashes.len() as u64 + 1) * u64::from(block_tokens) == u64::from(self.tokens) {
            self.hashes.push(hash);
        }
    }

    /// A token was sampled: where it belongs in the stream's output.
    pub fn push_token(&mut self) -> Position {
        let position = Position(self.position_first + self.sampled_tokens());
        self.tokens += 1;
        position
    }

    /// The last position computed has to be computed again, and not before [`Sequence::resume`].
    pub fn hold(&mut self) {
        self.computed -= 1;
        self.planned -= 1;
        self.is_held = true;
    }

    pub fn resume(&mut self) {
        self.is_held = false;
    }

    /// Back to waiting: its blocks are gone, its tokens are not.
    pub fn preempt(&mut self) {
        assert!(!self.is_flying(), "{self:?} is preempted and being computed");
        self.phase = Phase::Waiting;
        self.computed = 0;
        self.planned = 0;
        self.named_blocks = 0;
    }

    pub fn delivery(
        &mut self,
        now: Time,
        position: Option<Position>,
        finish: Option<Finish>,
    ) -> EngineDelivery {
        let is_first_token = position.is_some() && self.milestones.first_token.is_none();
        if is_first_token {
            self.milestones.first_token = Some(now);
        }
        EngineDelivery {
            stream: self.stream,
            attempt: self.attempt,
            sequence: self.id,
            cached_tokens: self.cached_tokens.take(),
            position,
            finish,
            timing: (is_first_token || finish.is_some()).then(|| self.timing(now)),
        }
    }

    fn timing(&self, now: Time) -> Timing {
        let started = self.milestones.started.unwrap_or(now);
        let first_token = self.milestones.first_token.unwrap_or(now);
        Timing {
            queue: started.since(self.arrived),
            prefill: first_token.since(started),
            decode: now.since(first_token),
        }
    }
}
