//! What the prompt of a chat ends with: the last message closed, or open for the model to go on with.

use super::error::ApiError;
use crate::text::{ChatTemplate, Conversation};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastTurn {
    /// The whole last message, and then perhaps the opening of the assistant's turn.
    Closed,
    /// The text of the last message, for the model to go on with.
    Open,
}

/// Marks on the rendered page where the text of the last message ends. The blank tells whether the template trims.
const MARK: &str = "\u{fdd0}the text ends here\u{fdd0} ";

impl LastTurn {
    pub fn new(
        continue_final_message: Option<bool>,
        add_generation_prompt: Option<bool>,
    ) -> Result<LastTurn, ApiError> {
        match (continue_final_message.unwrap_or(false), add_generation_prompt) {
            (false, _) => Ok(LastTurn::Closed),
            (true, Some(false) | None) => Ok(LastTurn::Open),
            (true, Some(true)) => Err(invalid(
                "`continue_final_message` and `add_generation_prompt` cannot both be true",
            )),
        }
    }

    /// The prompt as text.
    pub fn render(self, template: &ChatTemplate, mut conversation: Conversation) -> Result<String, ApiError> {
        match self {
            LastTurn::Closed => page(template, &conversation),
            LastTurn::Open => {
                conversation.add_generation_prompt = false;
                mark_end(&mut conversation)?;
                let mut page = page(template, &conversation)?;
                let end = text_end(&page).ok_or_else(|| {
                    invalid("the chat template does not show the last message, so it cannot be continued")
                })?;
                page.truncate(end);
                Ok(page)
            }
        }
    }
}

fn page(template: &ChatTemplate, conversation: &Conversation) -> Result<String, ApiError> {
    let page = template.render(conversation);
    page.map_err(|error| ApiError::invalid("messages", error.to_string()))
}

fn mark_end(conversation: &mut Conversation) -> Result<(), ApiError> {
    let last = conversation.messages.last_mut();
    let text = last.and_then(|message| message.content.as_mut());
    let text = text.ok_or_else(|| invalid("the last message has no text that could be continued"))?;
    text.push_str(MARK);
    Ok(())
}

/// A template that trims messages would have trimmed this one, had it ended without the mark.
fn text_end(page: &str) -> Option<usize> {
    let end = page.rfind(MARK.trim_end())?;
    match page[end..].starts_with(MARK) {
        true => Some(end),
        false => Some(page[..end].trim_end().len()),
    }
}

fn invalid(message: &str) -> ApiError {
    ApiError::invalid("continue_final_message", message)
}
