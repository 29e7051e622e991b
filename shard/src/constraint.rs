//! Which tokens may come next in a stream whose output has to match a grammar.

use proto::Position;
use std::fmt::Debug;
use std::sync::Arc;

/// Follows one stream through its grammar. It computes elsewhere and never makes its caller wait: a rank asks while
/// other sequences of the same step wait for it.
pub trait Constraint: Debug + Send + Sync {
    /// What may stand at `position`. Every token before it has been accepted, in order. The answer changes once, from
    /// [`Mask::Late`] to another; after an `accept` the next position is due.
    fn mask(&self, position: Position) -> Mask;

    /// `token` stands at the position whose mask was asked for last.
    fn accept(&self, token: u32);
}

/// What a [`Constraint`] knows of a position.
#[derive(Clone, Debug)]
pub enum Mask {
    Ready(Arc<TokenMask>),
    /// Still being computed. Whoever implements the constraint says when it is there; until then the sequence waits.
    Late,
    /// The grammar cannot be followed any further: it takes more computing than a stream may use.
    Failed,
}

/// May the text end here?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrammarEnd {
    NotYet,
    Allowed,
    /// It is complete, and nothing may follow.
    Due,
}

/// The tokens that may come next: one bit each, lowest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenMask {
    words: Vec<u32>,
    end: GrammarEnd,
}

impl TokenMask {
    /// `words`: bit t of all is token t; tokens beyond them are forbidden.
    pub fn new(words: Vec<u32>, end: GrammarEnd) -> TokenMask {
        TokenMask { words, end }
    }

    pub fn end(&self) -> GrammarEnd {
        self.end
    }

    pub fn allows(&self, token: u32) -> bool {
        let word = self.words.get(token as usize / 32);
        word.is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// The only token that is left, if it is one.
    pub(crate) fn only(&self) -> Option<u32> {
        let mut set = (0..).zip(&self.words).filter(|(_, word)| **word != 0);
        let (index, word): (u32, _) = set.next()?;
        (word.is_power_of_two() && set.next().is_none()).then(|| index * 32 + word.trailing_zeros())
    }

    /// Makes what is forbidden impossible.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        let words = self.words.iter().copied().chain(std::iter::repeat(0));
        for (logits, word) in logits.chunks_mut(32).zip(words) {
            match word {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                word => forbid(logits, word),
            }
        }
    }
}

fn forbid(logits: &mut [f32], word: u32) {
    for (bit, logit) in logits.iter_mut().enumerate() {
        if word >> bit & 1 == 0 {
            *logit = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 70 tokens, so that the last word is not full.
    fn mask(allowed: &[u32]) -> TokenMask {
        let mut words = vec![0; 3];
        allowed
            .iter()
            .for_each(|token| words[*token as usize / 32] |= 1 << (token % 32));
        TokenMask::new(words, GrammarEnd::NotYet)
    }

    #[test]
    fn what_is_not_allowed_is_impossible_also_beyond_the_mask() {
        for allowed in [&[0, 31, 32, 69][..], &[], &(0..70).collect::<Vec<_>>()] {
            let mut logits = [1.0; 100];
            mask(allowed).apply(&mut logits);
            for (token, logit) in (0..).zip(logits) {
                let is_allowed = allowed.contains(&token);
                assert_eq!(logit == 1.0, is_allowed, "token {token} of {allowed:?}");
                assert_eq!(mask(allowed).allows(token), is_allowed);
            }
        }
    }

    #[test]
    fn a_token_is_alone_only_when_no_other_is_allowed() {
        assert_eq!(mask(&[33]).only(), Some(33));
        assert_eq!(mask(&[33, 34]).only(), None);
        assert_eq!(mask(&[1, 33]).only(), None);
        assert_eq!(mask(&[]).only(), None);
    }
}
