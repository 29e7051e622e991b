//! From a prompt's text to its tokens. What cannot fit the model's context is refused before it is tokenized.

use super::error::ApiError;
use crate::gateway::ServedModel;
use crate::text::AddSpecial;

/// How many tokens are wanted at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokensMax {
    /// More are of no use to anybody.
    Context,
    /// The caller cuts them, or shows them.
    Unbounded,
}

impl TokensMax {
    /// For a prompt of which only the last `cut` tokens are kept; `None`: all of them.
    pub fn unless_cut(cut: Option<usize>) -> TokensMax {
        match cut {
            Some(_) => TokensMax::Unbounded,
            None => TokensMax::Context,
        }
    }
}

/// `param` is the field that holds the text.
pub fn encode(
    model: &ServedModel,
    text: &str,
    special: AddSpecial,
    tokens_max: TokensMax,
    param: &'static str,
) -> Result<Vec<u32>, ApiError> {
    let tokenizer = model.text.tokenizer();
    match tokens_max {
        TokensMax::Context => check_length(model, tokenizer.tokens_min(text), param)?,
        TokensMax::Unbounded => {}
    }
    tokenizer
        .encode(text, special)
        .map_err(|error| ApiError::too_long(param, error.to_string()))
}

fn check_length(model: &ServedModel, tokens_min: usize, param: &'static str) -> Result<(), ApiError> {
    let context = model.context_tokens_max as usize;
    match tokens_min <= context {
        true => Ok(()),
        false => Err(ApiError::beyond_context(
            param,
            context,
            &format!("it has at least {tokens_min} tokens"),
        )),
    }
}
