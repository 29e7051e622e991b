use crate::model::LoadError;
use kernels::{AttentionShape, Ops};

/// The KV bytes of a rank: its heads of every layer. Only bytes: who owns which page is the engine's business.
pub struct KvPool<O: Ops> {
    layers: Vec<O::Pages>,
}

impl<O: Ops> KvPool<O> {
    pub fn new(ops: &O, shape: &AttentionShape, layers: usize, blocks: u32) -> Result<Self, LoadError> {
        let pages = (0..layers).map(|_| ops.pages(shape, blocks as usize));
        let layers = pages
            .collect::<Result<_, _>>()
            .map_err(|error| LoadError::device("the KV cache", error))?;
        Ok(KvPool { layers })
    }

    pub fn layers(&mut self) -> impl Iterator<Item = &mut O::Pages> {
        self.layers.iter_mut()
    }

    /// Nothing of the former owner's is left in these pages.
    pub fn zero(&mut self, ops: &mut O, blocks: &[u32]) {
        if !blocks.is_empty() {
            self.layers
                .iter_mut()
                .for_each(|pages| ops.zero_blocks(pages, blocks));
        }
    }
}
