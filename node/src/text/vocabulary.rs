//! What each token id means in bytes.

use super::byte_alphabet;
use super::source::TokenizerSource;

/// GGUF's `tokenizer.ggml.token_type`.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Normal,
    /// Steers the model; not shown to people.
    Control,
    /// Taken whole from the input, and shown.
    UserDefined,
}

/// The bytes and the kind of every token. Ids run from 0 to `len() - 1` without a gap.
pub struct Vocabulary {
    /// All tokens one after the other.
    bytes: Vec<u8>,
    /// By id: where its bytes end.
    ends: Vec<usize>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    pub fn new(source: &TokenizerSource) -> Vocabulary {
        let mut vocabulary = Vocabulary {
            bytes: Vec::new(),
            ends: Vec::new(),
            kinds: Vec::new(),
        };
        for (id, token) in source.tokens.iter().enumerate() {
            let kind = kind_of(source.token_types.get(id).copied());
            vocabulary.bytes.extend(bytes_of(token, kind));
            vocabulary.ends.push(vocabulary.bytes.len());
            vocabulary.kinds.push(kind);
        }
        vocabulary
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn contains(&self, id: u32) -> bool {
        (id as usize) < self.len()
    }

    /// Not always valid UTF-8: a character may be cut across tokens. Empty for an id the vocabulary lacks.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.ends.get(index) else {
            return &[];
        };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }

    /// Of the longest token.
    pub fn token_bytes_max(&self) -> usize {
        (0..self.len() as u32)
            .map(|id| self.bytes(id).len())
            .max()
            .unwrap_or(0)
    }

    /// Control tokens, which are left out of text shown to people.
    pub fn is_special(&self, id: u32) -> bool {
        self.kinds.get(id as usize) == Some(&Kind::Control)
    }

    /// The token alone as text; what is not UTF-8 becomes U+FFFD.
    pub fn text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.bytes(id)).into_owned()
    }

    /// Tokens that are taken whole from the input wherever their text stands there.
    pub fn taken_whole(&self) -> impl Iterator<Item = u32> {
        let kinds = self.kinds.iter().enumerate();
        kinds
            .filter(|(_, kind)| **kind != Kind::Normal)
            .map(|(id, _)| id as u32)
    }
}

fn kind_of(token_type: Option<i32>) -> Kind {
    match token_type {
        Some(CONTROL) => Kind::Control,
        Some(USER_DEFINED) => Kind::UserDefined,
        Some(_) | None => Kind::Normal,
    }
}

fn bytes_of(token: &str, kind: Kind) -> Vec<u8> {
    match kind {
        // A token of another alphabet stands for its own text, as in the decoder of Hugging Face.
        Kind::Normal => byte_alphabet::decoded(token).unwrap_or_else(|| token.as_bytes().to_vec()),
        Kind::Control | Kind::UserDefined => token.as_bytes().to_vec(),
    }
}
