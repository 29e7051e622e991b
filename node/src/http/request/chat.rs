//! The body of `POST /v1/chat/completions`.

use super::form::{Choices, ResponseFormat, StructuredOutputs};
use super::list::{Biases, StopStrings, TokenIds};
use super::message::Messages;
use super::scalar::{Integer, Number, Seed};
use super::shared::{
    ChoiceCount, ServiceTier, StreamOptions, TokenCount, define_request, with_shared_fields,
};
use super::tool::{ToolChoice, Tools};
use super::unserved::{Unserved, UnservedNumber};
use serde_json::value::RawValue;

with_shared_fields! { define_request!
    /// A chat: messages in, the assistant's next message out.
    pub struct ChatRequest {
        #[schemars(required)]
        pub messages: Option<Messages>,
        /// Functions that the model may call.
        pub tools: Option<Tools>,
        /// Whether and what the model calls; the default is auto.
        pub tool_choice: Option<ToolChoice>,
        /// With false, an answer has at most one call.
        pub parallel_tool_calls: Option<bool>,
        /// Give the log-probability of each token.
        pub logprobs: Option<bool>,
        /// With `logprobs`, also those of this many of the likeliest tokens at each place.
        pub top_logprobs: Option<Integer<0, 20>>,
        /// End the prompt with the opening of the assistant's turn; the default is true.
        pub add_generation_prompt: Option<bool>,
        /// Go on with the last message instead of answering it; not together with `add_generation_prompt: true`.
        pub continue_final_message: Option<bool>,
        /// Further variables for the chat template.
        #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
        pub chat_template_kwargs: Option<Box<RawValue>>,
        /// How long the model is to think, as a variable for templates that know it.
        pub reasoning_effort: Option<String>,
        /// With false, what the model thinks before its answer is left out; it counts, all the same.
        pub include_reasoning: Option<bool>,
        /// Not supported: `echo` is for completions.
        pub echo: Option<bool>,
    }
}
