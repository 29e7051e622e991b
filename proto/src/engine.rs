//! What a gateway and an engine say to each other.

use crate::request::{Finish, Refusal, Submit};
use crate::stage::{StageAddress, StageAddresses, StageTrust};
use crate::weights::Landed;
use crate::{Attempt, Epoch, Position, ReplicaId, Span, StepId, StreamId};
use rkyv::{Archive, Deserialize, Serialize};

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum ToEngine {
    Submit(Box<Submit>),
    Cancel {
        stream: StreamId,
        attempt: Attempt,
    },
    /// Take nothing new; `Drained` is the answer once nothing runs.
    Drain,
    /// From the node alone, and only to the head of a pipeline: where its stages are, itself included.
    Stages(Box<StageAddresses>),
    /// From the node alone, to any stage.
    Trust(Box<StageTrust>),
    /// From the node alone, to a process whose model file is still coming.
    Landed(Box<Landed>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub enum FromEngine {
    /// Reading weights: parts of a thousand.
    Loading {
        permille: u16,
    },
    /// The replica can serve.
    Ready(ReplicaInfo),
    /// The replica cannot start; a person has to read this. The process ends after it.
    Failed {
        reason: String,
    },
    Tokens(TokenBatch),
    Refused {
        stream: StreamId,
        attempt: Attempt,
        refusal: Refusal,
    },
    Load(Load),
    Drained,
    /// To the node alone: the process has this port for the other stages of its pipeline.
    Listening(Box<StageAddress>),
    /// How well a pipeline is used. Comes with `Load`.
    Pipeline(Box<PipelineUse>),
    /// To the node alone, twice a second: the process is there. Said by a thread that does nothing else.
    Alive,
    /// As `Failed`: the model's file is not what it must be on this node's disk, or has gone from there.
    Damaged {
        reason: String,
    },
}

/// Of a replica in several stages, since its epoch began.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct PipelineUse {
    /// While at least one plan was under way.
    pub occupied: Span,
    /// What that would have been, had every plan been with the next stage as soon as one was done with it. The rest of
    /// `occupied` was lost between stages: to ways, to planning, and to cores that were not free.
    pub least: Span,
    /// What each stage computed, in their order: one for each of them.
    pub computed: Vec<Span>,
}

impl PipelineUse {
    /// The part of the stages' time that none of them computed in while there was work: 0 to 1.
    pub fn bubble(&self) -> f64 {
        let available = self.occupied.as_secs_f64() * self.computed.len() as f64;
        if available == 0.0 {
            0.0
        } else {
            (1.0 - self.computed_secs() / available).max(0.0)
        }
    }

    /// What of the bubble was lost between the stages. The rest is stages that wait for one another, because they are not
    /// equally fast, plans are not equally long, or there are fewer plans than stages.
    pub fn bubble_between(&self) -> f64 {
        let lost = self.occupied.as_secs_f64() - self.least.as_secs_f64();
        lost.max(0.0) / self.occupied.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Of what all stages computed, the part of each: all together 1, or 0 before anything was computed.
    pub fn shares(&self) -> impl Iterator<Item = f64> {
        let sum = self.computed_secs().max(f64::MIN_POSITIVE);
        self.computed.iter().map(move |span| span.as_secs_f64() / sum)
    }

    fn computed_secs(&self) -> f64 {
        self.computed.iter().map(|span| span.as_secs_f64()).sum()
    }
}

/// What a replica is, once it is known.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct ReplicaInfo {
    pub replica: ReplicaId,
    pub epoch: Epoch,
    /// The longest sequence it takes, in tokens.
    pub context_tokens_max: u32,
    pub block_tokens: u32,
    pub blocks: u32,
    /// Two replicas with the same fingerprint give the same tokens, bit for bit.
    pub numerics: u64,
    /// For people: device, level, ranks, formats, bytes.
    pub description: String,
}

/// At most one for each gateway and step.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct TokenBatch {
    pub replica: ReplicaId,
    pub epoch: Epoch,
    pub step: StepId,
    pub deliveries: Vec<Delivery>,
}

/// News of one stream.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Delivery {
    pub stream: StreamId,
    pub attempt: Attempt,
    /// How many prompt tokens came from the cache; sent with a stream's first delivery.
    pub cached_tokens: Option<u32>,
    /// Scores of prompt tokens, in order, without a gap from delivery to delivery; the first token has none.
    pub prompt_scores: Vec<TokenScore>,
    pub token: Option<Token>,
    pub finish: Option<Finish>,
    /// With the first token and with the last delivery.
    pub timing: Option<Timing>,
}

/// Where the time of a stream has gone so far, in the engine that has it now: what an engine before it took is not here.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timing {
    /// From its arrival to the first step that had it.
    pub queue: Span,
    /// From then to its first new token.
    pub prefill: Span,
    /// From then on.
    pub decode: Span,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Token {
    /// The gateway takes each position once, without a gap.
    pub position: Position,
    pub id: u32,
    /// Where log-probabilities were asked for.
    pub score: Option<TokenScore>,
}

/// Natural log-probabilities of the distribution before temperature, penalties and truncation.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct TokenScore {
    pub token: u32,
    pub logprob: f32,
    /// Rank of `token`: 0 is the likeliest.
    pub rank: u32,
    /// The likeliest tokens, best first, ties by lower id. Where `token` is among them, its value is the same f32.
    pub top: Vec<(u32, f32)>,
}

/// How busy a replica is.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Debug, Default)]
pub struct Load {
    pub running: u32,
    pub waiting: u32,
    /// Prompt tokens of waiting and running sequences still to be computed.
    pub backlog_tokens: u64,
    pub blocks_total: u32,
    /// Neither owned nor holding a reusable prefix.
    pub blocks_free: u32,
    pub blocks_cached: u32,
    /// Counters since the epoch began.
    pub steps: u64,
    pub preemptions: u64,
    pub prefix_queried_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub computed_tokens: u64,
    pub sampled_tokens: u64,
    /// The step-cost model as fitted so far: seconds = fixed + per_token · tokens + per_context · context tokens read.
    /// Where S stages work on as many steps at once, `per_token` and `per_context` are a part of 1/S of what they add to a
    /// step, so that forecasts hold for all the stages together.
    pub step_fixed_secs: f64,
    pub step_per_token_secs: f64,
    pub step_per_context_secs: f64,
}
