//! The body of `POST /v1/completions`.

use super::form::{Choices, ResponseFormat, StructuredOutputs};
use super::list::{Biases, StopStrings, TokenIds};
use super::prompt::Prompts;
use super::scalar::{Integer, Number, Seed};
use super::shared::{
    ChoiceCount, ServiceTier, StreamOptions, TokenCount, define_request, with_shared_fields,
};
use super::unserved::{Unserved, UnservedNumber};
use serde_json::value::RawValue;

with_shared_fields! { define_request!
    /// A completion: text or tokens in, what follows out.
    pub struct CompletionRequest {
        #[schemars(required)]
        pub prompt: Option<Prompts>,
        /// Give the log-probability of each token and of this many of the likeliest at its place.
        pub logprobs: Option<Integer<0, 20>>,
        /// Give the prompt back before the answer; with `logprobs` also its log-probabilities.
        pub echo: Option<bool>,
        /// Not supported: tools are for chats.
        pub tools: Option<Unserved>,
        /// Only `none` and `auto`: tools are for chats.
        #[schemars(with = "Option<serde_json::Value>")]
        pub tool_choice: Option<Box<RawValue>>,
        /// Not supported: `logprobs` is the number here.
        pub top_logprobs: Option<UnservedNumber<0>>,
    }
}
