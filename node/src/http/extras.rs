//! What may be asked for beside an answer, in vLLM's form: token ids, and the log-probabilities of the prompt.

use super::choice::{Choice, Fragment};
use super::dialect::{Dialect, WholeChoice};
use super::logprobs;
use crate::text::Vocabulary;
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extras {
    /// `return_token_ids`.
    pub token_ids: TokenIds,
    /// `prompt_logprobs`: how many of the likeliest tokens at each place of the prompt.
    pub prompt_logprobs: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenIds {
    Hidden,
    Shown,
}

impl Extras {
    /// Completions tell them with each choice; chats, which have one prompt, beside the choices.
    pub fn add_to_whole(
        self,
        dialect: Dialect,
        page: &mut Value,
        answers: &[WholeChoice],
        choices: &[Choice],
        vocabulary: &Vocabulary,
    ) {
        for (index, (answer, choice)) in answers.iter().zip(choices).enumerate() {
            let place = &mut page["choices"][index];
            if self.token_ids == TokenIds::Shown {
                place["token_ids"] = json!(answer.generated);
            }
            match dialect {
                Dialect::Completion => self.add_prompt(place, choice, vocabulary),
                Dialect::Chat => {}
            }
        }
        match (dialect, choices.first()) {
            (Dialect::Chat, Some(choice)) => self.add_prompt(page, choice, vocabulary),
            (Dialect::Chat, None) | (Dialect::Completion, _) => {}
        }
    }

    fn add_prompt(self, place: &mut Value, choice: &Choice, vocabulary: &Vocabulary) {
        if self.token_ids == TokenIds::Shown {
            place["prompt_token_ids"] = json!(choice.prompt());
        }
        if let Some(top_max) = self.prompt_logprobs {
            place["prompt_logprobs"] =
                logprobs::prompt(choice.prompt_scores(), usize::from(top_max), vocabulary);
        }
    }

    /// The ids of a stream's prompt, for the first chunk of a choice.
    pub fn prompt_ids(self, choice: &Choice) -> Option<Value> {
        match self.token_ids {
            TokenIds::Shown => Some(json!(choice.prompt())),
            TokenIds::Hidden => None,
        }
    }

    /// The ids that a fragment's text stands for; the prompt that `echo` gives back is not among them.
    pub fn add_to_part(self, part: &mut Value, fragment: &Fragment) {
        if self.token_ids == TokenIds::Shown {
            part["token_ids"] = json!(fragment.generated().collect::<Vec<u32>>());
        }
    }
}
