//! What nodes need to know of a model whose weights they do not hold: its tokenizer and chat template.

use proto::wire::{self, Kind, WireError};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::text::TokenizerSource;

/// Of the models that this node holds, by digest, as they are sent. Cheap to copy.
#[derive(Clone, Default)]
pub struct Texts(Arc<RwLock<Frames>>);

type Frames = BTreeMap<[u8; 32], Arc<Vec<u8>>>;

impl Texts {
    pub fn add(&self, digest: [u8; 32], source: &TokenizerSource) {
        let frame = Arc::new(wire::frame(Kind::ModelText, 0, source));
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(digest, frame);
    }

    pub fn find(&self, digest: &[u8; 32]) -> Option<Arc<Vec<u8>>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).cloned()
    }
}

pub fn read(frame: &[u8]) -> Result<TokenizerSource, WireError> {
    wire::read(Kind::ModelText, frame)
}
