//! Tokens to text, as they come.

use super::vocabulary::Vocabulary;
use std::sync::Arc;

/// Whether control tokens are written out in the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SpecialTokens {
    #[default]
    Skip,
    Show,
}

/// Whatever was returned so far, put together with `finish`, equals the lossy UTF-8 reading of all tokens' bytes; a
/// character that is cut across tokens is held back until it is whole.
pub struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    special: SpecialTokens,
    /// Special tokens that are written out in any case; few.
    marks: Arc<[u32]>,
    /// The start of a character whose other bytes have not come; at most 3 bytes between calls.
    held: Vec<u8>,
}

impl Detokenizer {
    pub fn new(vocabulary: Arc<Vocabulary>, special: SpecialTokens) -> Detokenizer {
        Detokenizer {
            vocabulary,
            special,
            marks: Arc::default(),
            held: Vec::new(),
        }
    }

    /// Writes out these special tokens too: a reader of the text looks for them.
    pub fn with_marks(self, marks: Arc<[u32]>) -> Detokenizer {
        Detokenizer { marks, ..self }
    }

    /// The text that is certain now.
    pub fn push(&mut self, id: u32) -> String {
        match self.special {
            SpecialTokens::Skip if self.vocabulary.is_special(id) && !self.marks.contains(&id) => {
                String::new()
            }
            SpecialTokens::Skip | SpecialTokens::Show => {
                self.held.extend_from_slice(self.vocabulary.bytes(id));
                self.take_certain()
            }
        }
    }

    /// What was held back, when nothing more comes.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.held);
        String::from_utf8_lossy(&rest).into_owned()
    }

    fn take_certain(&mut self) -> String {
        let rest = self
            .held
            .split_off(self.held.len() - incomplete_bytes(&self.held));
        let certain = std::mem::replace(&mut self.held, rest);
        String::from_utf8_lossy(&certain).into_owned()
    }
}

/// How many bytes at the end of `bytes` begin a character that more bytes could complete.
fn incomplete_bytes(bytes: &[u8]) -> usize {
    let tail_start = bytes.len().saturating_sub(3);
    for start in tail_start..bytes.len() {
        let tail = &bytes[start..];
        if let Err(error) = std::str::from_utf8(tail)
            && error.valid_up_to() == 0
            && error.error_len().is_none()
        {
            return tail.len();
        }
    }
    0
}

/// The text of whole `ids`.
pub fn decode(vocabulary: &Arc<Vocabulary>, ids: &[u32], special: SpecialTokens) -> String {
    let mut detokenizer = Detokenizer::new(vocabulary.clone(), special);
    let mut text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
    text.push_str(&detokenizer.finish());
    text
}
