//! What a request has used, in tokens.

use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Each prompt once, however many choices it has.
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// How many of `prompt_tokens` came from the prefix cache.
    pub cached_tokens: u64,
    /// How many of `completion_tokens` were spent on reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    pub fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        })
    }
}
