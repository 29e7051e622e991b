use super::cut::Cut;
use super::linear::Linear;
use super::packed_cache::PackedCache;
use super::{Arrivals, LoadError};
use crate::gguf::{Gguf, Tensor};
use kernels::Ops;
use std::ops::Range;

/// Where weights come from.
pub struct WeightSource<'a> {
    pub gguf: &'a Gguf<'a>,
    /// No tensor's bytes are looked at before they are there.
    pub arrivals: &'a mut dyn Arrivals,
    pub packed: &'a mut dyn PackedCache,
    /// Is told, now and then, how many bytes of weights the rank has taken in so far, as they are counted once packed.
    pub progress: &'a mut dyn FnMut(u64),
}

/// What a rank takes from it.
pub struct Weights<'a, 's, O: Ops> {
    pub ops: &'a O,
    pub source: &'a mut WeightSource<'s>,
    pub cut: &'a Cut,
    pub rank: usize,
    /// In bytes as packed.
    pub loaded: u64,
}

impl<O: Ops> Weights<'_, '_, O> {
    pub fn vector(&mut self, name: &str) -> Result<Vec<f32>, LoadError> {
        let gguf = self.source.gguf;
        let tensor = gguf.tensor(name)?;
        self.wait_for(tensor)?;
        self.count(tensor.packed_bytes());
        Ok(tensor.floats()?)
    }

    /// The rows `outputs` of a matrix.
    pub fn matrix(&mut self, name: &str, outputs: &Range<usize>) -> Result<Linear<O>, LoadError> {
        let gguf = self.source.gguf;
        let tensor = gguf.tensor(name)?;
        let linear = match self.packed(tensor, outputs) {
            Some(linear) => linear,
            None => self.pack(tensor, outputs)?,
        };
        let all = tensor.dimensions[1] as u64;
        self.count(tensor.packed_bytes() / all * outputs.len() as u64);
        Ok(linear)
    }

    fn packed(&mut self, tensor: &Tensor<'_>, outputs: &Range<usize>) -> Option<Linear<O>> {
        let packed = self.source.packed.find(tensor.name, outputs)?;
        // One that does not fit the file is of no use.
        Linear::adopt(self.ops, tensor, packed, outputs).ok()
    }

    fn pack(&mut self, tensor: &Tensor<'_>, outputs: &Range<usize>) -> Result<Linear<O>, LoadError> {
        self.wait_for(tensor)?;
        let linear = Linear::pack(self.ops, tensor, outputs)?;
        self.source
            .packed
            .keep(tensor.name, outputs, linear.packed(self.ops));
        Ok(linear)
    }

    fn wait_for(&mut self, tensor: &Tensor<'_>) -> Result<(), LoadError> {
        let came = self.source.arrivals.wait_for(&tensor.place());
        came.map_err(|error| LoadError::Arrival {
            tensor: tensor.name.to_owned(),
            error,
        })
    }

    fn count(&mut self, bytes: u64) {
        self.loaded += bytes;
        (self.source.progress)(self.loaded);
    }
}
