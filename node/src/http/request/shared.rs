//! What chat and completions ask for in the same words.
//!
//! The list of fields stands here once, as a macro that pastes it into both bodies: `#[serde(flatten)]` would do the same
//! at the price of keeping every value of the body in memory until its owner is known, and of errors without a place.

use super::form::{Choices, ResponseFormat, StructuredOutputs};
use super::list::{Biases, StopStrings, TokenIds};
use super::scalar::{Integer, Number, Seed};
use super::unserved::{Unserved, UnservedNumber};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

/// How many answers to one prompt.
pub type ChoiceCount = Integer<1, 64>;

/// A count of tokens.
pub type TokenCount = Integer<0, { u32::MAX as i64 }>;

/// How a stream tells the usage.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(expecting = "an object")]
pub struct StreamOptions {
    /// One more chunk at the end, with `choices: []` and the usage.
    pub include_usage: Option<bool>,
    /// The usage so far on every chunk with a choice.
    pub continuous_usage_stats: Option<bool>,
}

/// A class of the queue.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(
    rename_all = "lowercase",
    expecting = "auto, default, flex, priority, scale or fast"
)]
pub enum ServiceTier {
    Auto,
    Default,
    Flex,
    Priority,
    /// What is sold beside the queue elsewhere; here the default.
    Scale,
    /// The same as `priority`.
    Fast,
}

impl ServiceTier {
    pub fn name(self) -> &'static str {
        match self {
            ServiceTier::Auto => "auto",
            ServiceTier::Default => "default",
            ServiceTier::Priority => "priority",
            ServiceTier::Flex => "flex",
            ServiceTier::Scale => "scale",
            ServiceTier::Fast => "fast",
        }
    }
}

/// Calls `$define! { { $own } { the shared fields } }`.
macro_rules! with_shared_fields {
    ($define:ident! $($own:tt)*) => {
        $define! { { $($own)* } {
            /// The served name of a model; may be left out where only one is served.
            model: String,
            /// 0 takes the likeliest token; the default is 1.
            temperature: Number<0, 2>,
            /// Keeps the likeliest tokens whose probabilities add up to this; above 0.
            top_p: Number<0, 1>,
            /// Keeps this many of the likeliest tokens; 0 and -1 keep all.
            top_k: Integer<-1, { u32::MAX as i64 }>,
            /// Keeps tokens with at least this share of the likeliest token's probability.
            min_p: Number<0, 1>,
            /// Taken from the logits of tokens that were generated before.
            presence_penalty: Number<-2, 2>,
            /// Taken from the logits of tokens for each time they were generated before.
            frequency_penalty: Number<-2, 2>,
            /// Divides the logits of tokens that came before, in prompt or answer; from 0.01, and 1 changes nothing.
            repetition_penalty: Number<0, 100>,
            /// Added to the logits of tokens, by token id.
            logit_bias: Biases,
            /// The same request with the same seed gives the same answer; when left out, drawn, or made of the `Idempotency-Key`.
            seed: Seed,
            /// Answers for each prompt; choice index = prompt · n + k.
            n: ChoiceCount,
            /// Must equal `n`: choices are not ranked.
            best_of: ChoiceCount,
            /// The answer ends before the first of these strings.
            stop: StopStrings,
            /// The answer ends with any of these tokens.
            stop_token_ids: TokenIds,
            /// Goes on after the model's own end of an answer.
            ignore_eos: bool,
            /// Neither an end token nor a stop string ends the answer before this many tokens; a form of the answer that is
            /// complete and cannot go on does.
            min_tokens: TokenCount,
            /// Most tokens of an answer.
            max_tokens: TokenCount,
            /// Newer name of `max_tokens`, which counts where both are given.
            max_completion_tokens: TokenCount,
            /// Send the answer as server-sent events.
            stream: bool,
            /// How a stream tells the usage; without a stream it means nothing.
            stream_options: StreamOptions,
            /// Class of the queue.
            service_tier: ServiceTier,
            /// Leave special tokens out of the text; the default is true.
            skip_special_tokens: bool,
            /// Whether the tokenizer adds the model's special tokens to the prompt: by default for completions, not for
            /// chats, whose template has them.
            add_special_tokens: bool,
            /// Leave the stop string, or the text of the stop token, at the end of the answer.
            include_stop_str_in_output: bool,
            /// Keep the last so many tokens of a prompt; -1: as many as the context has room for.
            truncate_prompt_tokens: Integer<-1, { u32::MAX as i64 }>,
            /// Give the log-probability of each token of the prompt and of this many of the likeliest at its place. Not
            /// for streams.
            prompt_logprobs: Integer<0, 20>,
            /// Give the token ids of prompt and answer, too.
            return_token_ids: bool,
            /// Log-probabilities name tokens as `token_id:123`.
            return_tokens_as_token_ids: bool,

            /// Form of the answer: `text`, `json_object` or `json_schema`.
            response_format: ResponseFormat,
            /// Form of the answer, in vLLM's words.
            structured_outputs: StructuredOutputs,
            /// Older name of `structured_outputs.json`.
            #[schemars(with = "Option<serde_json::Value>")]
            guided_json: Box<RawValue>,
            /// Older name of `structured_outputs.regex`.
            guided_regex: String,
            /// Older name of `structured_outputs.choice`.
            guided_choice: Choices,
            /// Older name of `structured_outputs.grammar`.
            guided_grammar: String,
            guided_whitespace_pattern: Unserved,

            /// Not supported: an older form of `tools`.
            functions: Unserved,
            /// Only `none` and `auto`.
            #[schemars(with = "Option<serde_json::Value>")]
            function_call: Box<RawValue>,
            suffix: Unserved,
            use_beam_search: Unserved,
            bad_words: Unserved,
            allowed_token_ids: Unserved,
            logits_processors: Unserved,
            chat_template: Unserved,
            audio: Unserved,
            /// Only `["text"]`.
            #[schemars(with = "Option<Vec<String>>")]
            modalities: Box<RawValue>,
            web_search_options: Unserved,
            documents: Unserved,
            thinking_token_budget: Unserved,
            logprob_token_ids: Unserved,
            prompt_embeds: Unserved,
            repetition_detection: Unserved,
            length_penalty: UnservedNumber<1>,
            typical_p: UnservedNumber<1>,
            mirostat: UnservedNumber<0>,
            dry_multiplier: UnservedNumber<0>,
            xtc_probability: UnservedNumber<0>,
            tfs: UnservedNumber<1>,
            tfs_z: UnservedNumber<1>,
            top_a: UnservedNumber<0>,
            no_repeat_ngram_size: UnservedNumber<0>,
            /// Not supported: tenants are scheduled fairly; see `service_tier`.
            priority: UnservedNumber<0>,
            kv_transfer_params: Unserved,
            /// Not supported under this name: see `repetition_penalty`.
            repeat_penalty: UnservedNumber<1>,
            /// Not supported under this name: see `max_tokens`.
            max_new_tokens: Unserved,
            /// Not supported under this name: see `min_tokens`.
            min_new_tokens: UnservedNumber<0>,
            /// Only `left`: of a prompt that is cut, the end is kept.
            #[schemars(with = "Option<String>")]
            truncation_side: Box<RawValue>,
            /// Not supported: cached prompts are each tenant's own.
            cache_salt: Unserved,
            /// Not supported under this name: see `structured_outputs`.
            grammar: Unserved,
            /// Not supported under this name: see `response_format`.
            json_schema: Unserved,
            /// Not supported under this name: see `structured_outputs`.
            regex: Unserved,
            /// Not supported under this name: see `structured_outputs`.
            ebnf: Unserved,
            /// Not supported: see `stop`.
            stop_regex: Unserved,
            /// Not supported under this name: see `include_stop_str_in_output`.
            no_stop_trim: Unserved,
            /// Not supported under this name: see `max_tokens`.
            n_predict: Unserved,
            /// Not supported: only 0 and less, which keep all tokens.
            #[schemars(with = "Option<f64>")]
            top_n_sigma: Box<RawValue>,
            dynatemp_range: UnservedNumber<0>,
            num_beams: UnservedNumber<1>,
            /// Only true: `temperature` 0 takes the likeliest tokens.
            do_sample: bool,
            custom_logit_processor: Unserved,
            lora_path: Unserved,
            /// Not supported under this name: see `prompt`.
            input_ids: Unserved,
            input_embeds: Unserved,
            /// Only true.
            spaces_between_special_tokens: bool,
            /// Not supported under this name: see `chat_template_kwargs`.
            enable_thinking: bool,
            /// Only `medium`.
            #[schemars(with = "Option<String>")]
            verbosity: Box<RawValue>,
        } }
    };
}

/// A body of its own fields and the shared ones.
macro_rules! define_request {
    (
        { $(#[$meta:meta])* pub struct $name:ident { $($own:tt)* } }
        { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(serde::Deserialize, schemars::JsonSchema)]
        #[serde(expecting = "an object")]
        pub struct $name {
            $($own)*
            $($(#[$field_meta])* $field: Option<$kind>,)*
        }

        impl $name {
            /// Has the dice thrown with this seed where the client gave none.
            pub fn seed_unless_given(&mut self, seed: Option<u64>) {
                self.seed = self.seed.or(seed.map($crate::http::request::scalar::Seed));
            }

            /// Takes the shared fields out of the request.
            pub fn take_shared(&mut self) -> $crate::http::request::Shared {
                $crate::http::request::Shared { $($field: self.$field.take(),)* }
            }
        }
    };
}

macro_rules! define_shared {
    ({ $(#[$meta:meta])* pub struct $name:ident; } { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        pub struct $name {
            $(pub $field: Option<$kind>,)*
        }
    };
}

pub(super) use {define_request, with_shared_fields};

with_shared_fields! { define_shared!
    /// The shared fields of a request.
    pub struct Shared;
}

impl Shared {
    /// The field that bounds the answer, and its bound; the newer name counts where both are given.
    pub fn output_tokens_max(&self) -> Option<(&'static str, u32)> {
        let given = [
            ("max_completion_tokens", self.max_completion_tokens),
            ("max_tokens", self.max_tokens),
        ];
        let mut given = given.into_iter();
        given.find_map(|(field, tokens)| Some((field, tokens?.get() as u32)))
    }
}
