use super::LoadError;
use super::cut::Cut;
use super::linear::Linear;
use crate::gguf::Gguf;
use kernels::Ops;
use std::ops::Range;

/// Where a rank takes its weights from, and tells how far it is.
pub struct Weights<'a, O: Ops> {
    pub ops: &'a O,
    pub gguf: &'a Gguf<'a>,
    pub cut: &'a Cut,
    pub rank: usize,
    /// Bytes of the file that this rank has read.
    pub loaded: u64,
    pub progress: &'a mut dyn FnMut(u64),
}

impl<O: Ops> Weights<'_, O> {
    pub fn vector(&mut self, name: &str) -> Result<Vec<f32>, LoadError> {
        let tensor = self.gguf.tensor(name)?;
        self.count(tensor.bytes().len());
        Ok(tensor.floats()?)
    }

    /// The rows `outputs` of a matrix.
    pub fn matrix(&mut self, name: &str, outputs: &Range<usize>) -> Result<Linear<O>, LoadError> {
        let tensor = self.gguf.tensor(name)?;
        let linear = Linear::load(self.ops, tensor, outputs)?;
        let all = tensor.dimensions[1];
        self.count(tensor.bytes().len() / all * outputs.len());
        Ok(linear)
    }

    fn count(&mut self, bytes: usize) {
        self.loaded += bytes as u64;
        (self.progress)(self.loaded);
    }
}
