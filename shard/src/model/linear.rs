use super::LoadError;
use crate::gguf::Tensor;
use kernels::{InputPrecision, Ops, PackedBytes};
use std::ops::Range;

/// A rank's rows of a matrix, as the device likes them.
pub struct Linear<O: Ops> {
    weights: O::Weights,
}

impl<O: Ops> Linear<O> {
    /// `outputs` are the rows of the matrix that this rank computes.
    pub fn pack(ops: &O, tensor: &Tensor<'_>, outputs: &Range<usize>) -> Result<Self, LoadError> {
        let format = tensor.format()?;
        let inputs = tensor.dimensions[0];
        let row_bytes = format.row_bytes(inputs).ok_or_else(|| {
            LoadError::device(tensor.name, kernels::OpsError::WrongBlock { format, inputs })
        })?;
        let bytes = &tensor.bytes()[outputs.start * row_bytes..outputs.end * row_bytes];
        let weights = ops
            .pack(format, bytes, outputs.len(), inputs)
            .map_err(|error| LoadError::device(tensor.name, error))?;
        Ok(Linear { weights })
    }

    /// As `pack`, from what it made of these rows before.
    pub fn adopt(
        ops: &O,
        tensor: &Tensor<'_>,
        packed: PackedBytes,
        outputs: &Range<usize>,
    ) -> Result<Self, LoadError> {
        let weights = ops.adopt(tensor.format()?, packed, outputs.len(), tensor.dimensions[0]);
        Ok(Linear {
            weights: weights.map_err(|error| LoadError::device(tensor.name, error))?,
        })
    }

    pub fn packed<'a>(&'a self, ops: &'a O) -> &'a [u8] {
        ops.packed(&self.weights)
    }

    /// The products of `x` with each of `linears`, side by side in `out`; as in [`Ops::matmul`].
    pub fn multiply<const N: usize>(
        ops: &mut O,
        linears: [&Linear<O>; N],
        x: &O::Tensor,
        precision: InputPrecision,
        out: &mut O::Tensor,
    ) {
        ops.matmul(&linears.map(|linear| &linear.weights), x, precision, out);
    }

    /// As a table of embeddings.
    pub fn embed(&self, ops: &mut O, tokens: &[u32], out: &mut O::Tensor) {
        ops.embed(&self.weights, tokens, out);
    }
}
