//! The bodies of `POST /tokenize` and `POST /detokenize`.

use super::list::TokenIds;
use super::message::Messages;
use super::tool::Tools;
use super::unserved::Unserved;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Text or a chat, to become tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct TokenizeRequest {
    /// The served name of a model; may be left out where only one is served.
    pub model: Option<String>,
    pub prompt: Option<String>,
    /// Instead of `prompt`: a chat, as its template writes it.
    pub messages: Option<Messages>,
    /// With `messages`: the tools that the template tells the model of.
    pub tools: Option<Tools>,
    /// Whether the model's special tokens are added: by default with `prompt`, not with `messages`.
    pub add_special_tokens: Option<bool>,
    /// With `messages`: end with the opening of the assistant's turn; the default is true.
    pub add_generation_prompt: Option<bool>,
    /// With `messages`: end with the text of the last one.
    pub continue_final_message: Option<bool>,
    /// With `messages`: further variables for the chat template.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub chat_template_kwargs: Option<Box<RawValue>>,
    pub chat_template: Option<Unserved>,
    /// Give each token's text, too.
    pub return_token_strs: Option<bool>,
}

/// Tokens, to become text.
#[derive(Deserialize, JsonSchema)]
#[serde(expecting = "an object")]
pub struct DetokenizeRequest {
    /// The served name of a model; may be left out where only one is served.
    pub model: Option<String>,
    #[schemars(required)]
    pub tokens: Option<TokenIds>,
}
