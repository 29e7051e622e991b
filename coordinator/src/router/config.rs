//! The bounds of a router.

use proto::Span;

#[derive(Clone, PartialEq, Debug)]
pub struct RouterConfig {
    /// Streams admitted and not ended; a request that would exceed it is refused with `Busy`.
    pub streams_max: u32,
    /// The same for one tenant, so that a flood of one is not a full queue for all.
    pub streams_per_tenant_max: u32,
    /// Prompt tokens of admitted streams that no replica has begun to answer.
    pub prompt_tokens_max: u64,
    /// Submits that a replica has neither answered nor refused: what keeps its mailbox short.
    pub credits: u32,
    /// Blocks of prompts of which it is remembered where they were sent, over all replicas.
    pub remembered_blocks_max: u32,
    /// How many attempts of a stream may be lost without a new token in between before it is abandoned. One that gets on is
    /// not what breaks its replicas, and ends, since its tokens are bounded.
    pub attempts_max: u32,
    /// How long an admitted stream waits while no replica of its model is up.
    pub replica_wait_max: Span,
}

impl Default for RouterConfig {
    fn default() -> Self {
        RouterConfig {
            streams_max: 1024,
            streams_per_tenant_max: 512,
            prompt_tokens_max: 1 << 21,
            credits: 128,
            remembered_blocks_max: 1 << 20,
            attempts_max: 5,
            replica_wait_max: Span::from_secs(30),
        }
    }
}
