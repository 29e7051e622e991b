//! A place in a grammar.

use llguidance::Matcher;
use llguidance::api::StopReason;
use shard::{GrammarEnd, TokenMask};
use std::sync::Arc;

/// What of a mask was computed: an estimate from counted work, so that it is the same on a busy machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// Less than a tenth of what a step of a small model takes.
    Small,
    Large,
}

/// The grammar cannot be followed from here: it takes too much work, or what follows is not its text.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{0}")]
pub struct Lost(String);

pub struct Follower {
    matcher: Matcher,
    end_tokens: Arc<[u32]>,
}

const NOTHING_NEXT: &str = "no token can come next";

const MICROS_SMALL_MAX: u64 = 250;

impl Follower {
    pub fn new(matcher: Matcher, end_tokens: Arc<[u32]>) -> Follower {
        Follower { matcher, end_tokens }
    }

    pub fn apart(&self) -> Follower {
        Follower {
            matcher: self.matcher.deep_clone(),
            end_tokens: Arc::clone(&self.end_tokens),
        }
    }

    /// `token` must be one that the last mask allows.
    pub fn accept(&mut self, token: u32) -> Result<(), Lost> {
        self.matcher.consume_token(token).map_err(lost)
    }

    /// The tokens that may come next, without those that end an answer: where the text may end they may follow.
    pub fn mask(&mut self) -> Result<TokenMask, Lost> {
        if self.matcher.is_stopped() {
            return match self.matcher.stop_reason() {
                StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence => {
                    Ok(TokenMask::new(Vec::new(), GrammarEnd::Due))
                }
                reason => Err(Lost(reason.to_string())),
            };
        }
        let tokens = self.matcher.compute_mask().map_err(lost)?;
        let is_complete = self.matcher.is_accepting().map_err(lost)?;
        let count = tokens.len();
        let mut words = Vec::from(tokens);
        clear_beyond(&mut words, count);
        for token in self.end_tokens.iter() {
            words[*token as usize / 32] &= !(1 << (token % 32));
        }
        let is_empty = words.iter().all(|word| *word == 0);
        let end = match (is_complete, is_empty) {
            (true, true) => GrammarEnd::Due,
            (true, false) => GrammarEnd::Allowed,
            (false, true) => return Err(Lost(NOTHING_NEXT.to_owned())),
            (false, false) => GrammarEnd::NotYet,
        };
        Ok(TokenMask::new(words, end))
    }

    /// Of the last mask.
    pub fn cost(&self) -> Cost {
        let Ok(stats) = self.matcher.last_step_stats() else {
            return Cost::Large;
        };
        let micros =
            stats.lexer_cost / 14 + stats.all_items as u64 / 20 + stats.trie_nodes_walked as u64 / 100;
        match micros < MICROS_SMALL_MAX {
            true => Cost::Small,
            false => Cost::Large,
        }
    }
}

/// A set of tokens has one bit more than there are tokens, and it means nothing.
fn clear_beyond(words: &mut [u32], count: usize) {
    for (index, word) in words.iter_mut().enumerate().skip(count / 32) {
        let kept = count.saturating_sub(index * 32);
        *word &= u32::MAX.checked_shr(32 - kept as u32).unwrap_or(0);
    }
}

fn lost(error: anyhow::Error) -> Lost {
    let message = error.to_string();
    let first_line = message.lines().next().unwrap_or_default();
    // Of a reason to stop there is no more than its name.
    let is_stuck = first_line == StopReason::NoExtensionBias.to_string();
    Lost(match is_stuck {
        true => NOTHING_NEXT.to_owned(),
        false => first_line.to_owned(),
    })
}
