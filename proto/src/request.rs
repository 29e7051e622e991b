//! What a client asks for, once the gateway has turned text into tokens.

use crate::{AdapterId, Attempt, BlockHash, StreamId, TenantId, Time};
use rkyv::{Archive, Deserialize, Serialize};

/// All that a *decider* knows of a stream: lengths, counts and hashes, never a token.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Ticket {
    pub stream: StreamId,
    pub attempt: Attempt,
    pub tenant: TenantId,
    pub class: ServiceClass,
    pub adapter: AdapterId,
    /// Tokens to compute before the first new one: the client's prompt, and on a resubmission what was delivered.
    pub prompt_tokens: u32,
    /// How many of `prompt_tokens` are earlier output of this very stream; new output starts at this position.
    pub resumed_tokens: u32,
    /// Chained hashes of the full blocks of those tokens (see [`BlockHash::chain`]).
    pub block_hashes: Vec<BlockHash>,
    /// How many tokens may still be produced; 0 asks for the scores of the prompt alone.
    pub max_new_tokens: u32,
    pub prefix: PrefixUse,
    /// The request is worthless after this moment.
    pub deadline: Option<Time>,
}

/// What an engine receives for one stream. Tokens are opaque to deciders; the shell around them keeps them.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Submit {
    pub ticket: Ticket,
    /// `ticket.prompt_tokens` ids.
    pub prompt: Vec<u32>,
    /// The hash before block 0, to name the blocks that generation fills.
    pub hash_root: BlockHash,
    pub sampling: Sampling,
}

/// Classes of one queue, best first.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub enum ServiceClass {
    Priority,
    #[default]
    Default,
    Flex,
}

/// May cached KV stand in for computing the prompt?
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum PrefixUse {
    #[default]
    Reuse,
    /// Every prompt position must be computed, because its scores are wanted.
    Recompute,
}

/// How the next token is chosen. A function of these, the logits and (seed, choice, position, draw) alone.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Sampling {
    /// Drawn at admission when the client sent none, and kept for the life of the request.
    pub seed: u64,
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 keeps everything.
    pub top_p: f32,
    /// 0 keeps everything.
    pub top_k: u32,
    /// 0 keeps everything.
    pub min_p: f32,
    /// Subtracted once from every token that the output already has.
    pub presence_penalty: f32,
    /// Subtracted for each time that the output already has the token.
    pub frequency_penalty: f32,
    /// 1 changes nothing; divides positive and multiplies negative logits of tokens in prompt or output.
    pub repetition_penalty: f32,
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens that end the stream (the model's own unless `ignore_eos`). They are delivered, and not shown as text.
    pub stop_tokens: Vec<u32>,
    /// No stop token may be chosen before this many output tokens.
    pub min_tokens: u32,
    /// Log-probabilities of the chosen token and of this many best ones; `None`: not wanted.
    pub logprobs: Option<u8>,
    /// The same for every token of the prompt (`echo`).
    pub prompt_logprobs: Option<u8>,
    /// What the whole output has to match, from its first token to its last; `None`: anything.
    pub grammar: Option<Grammar>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            seed: 0,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            stop_tokens: Vec::new(),
            min_tokens: 0,
            logprobs: None,
            prompt_logprobs: None,
            grammar: None,
        }
    }
}

/// The texts that an output may be, as the client or the gateway wrote them down. A stop token may be chosen only where
/// such a text is complete; where nothing else may follow, it is.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under this JSON schema.
    JsonSchema(String),
    /// Matches this regular expression from its first to its last byte.
    Regex(String),
    /// One of these.
    Choice(Vec<String>),
    /// A context-free grammar in the dialect of Lark that llguidance reads; its start rule is `start`.
    Lark(String),
}

/// Why a stream ended.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Finish {
    /// A stop token was chosen, or a stop string was seen by the gateway.
    Stop,
    /// `max_new_tokens` or the context is used up.
    Length,
    /// The client went away or asked for it.
    Cancelled,
    /// The deadline passed.
    Expired,
    /// This request could not be computed; others are untouched.
    Failed,
    /// Its grammar takes more computing than one stream may use; others are untouched.
    GrammarTooCostly,
}

/// Why a stream was not taken. Each is an honest answer at arrival, never a silent wait.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// The queue is full; worth another try after this long.
    Busy { retry_after: crate::Span },
    /// Prompt and output together do not fit the context or the whole KV cache.
    TooLong { tokens: u32, tokens_max: u32 },
    /// No replica serves at the moment.
    Unavailable { retry_after: crate::Span },
    /// The node is ending.
    Draining,
    /// Its grammar cannot be compiled, for this reason. It would be the same everywhere.
    BadGrammar { reason: String },
}
