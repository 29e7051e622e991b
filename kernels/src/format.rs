//! How the bytes of a weight matrix are to be read.

use std::fmt;

use crate::OpsError;

/// Formats as stored in GGUF files. Quantised ones have blocks of 32 weights, Q4_K, Q5_K and Q6_K of 256, along the
/// input dimension.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WeightFormat {
    F32,
    F16,
    Bf16,
    /// f16 scale, 32 × i8: `d · q`.
    Q8_0,
    /// f16 scale, 16 bytes of nibbles (low half first): `d · (q − 8)`.
    Q4_0,
    /// f16 scale, f16 minimum, 16 bytes of nibbles: `d · q + m`.
    Q4_1,
    /// f16 scale, 4 bytes with the fifth bits, 16 bytes of nibbles (low half first): `d · (q − 16)`.
    Q5_0,
    /// f16 scale, f16 minimum, 12 bytes with a scale and a minimum in six bits for each 32 weights, 128 bytes of nibbles:
    /// `d · s · q − e · t`. Which bits are whose: [`crate::reference::Matrix::weight`].
    Q4K,
    /// As `Q4K`, with 32 bytes of fifth bits before the nibbles.
    Q5K,
    /// 128 bytes with the low four bits of 256 weights, 64 with the high two, an i8 scale for each 16 of them, f16 scale:
    /// `d · s · (q − 32)`. Which bits are whose: [`crate::reference::Matrix::weight`].
    Q6K,
}

impl WeightFormat {
    /// Weights per block.
    pub const fn block(self) -> usize {
        match self {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => 1,
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 | WeightFormat::Q5_0 => 32,
            WeightFormat::Q4K | WeightFormat::Q5K | WeightFormat::Q6K => 256,
        }
    }

    pub const fn block_bytes(self) -> usize {
        match self {
            WeightFormat::F32 => 4,
            WeightFormat::F16 | WeightFormat::Bf16 => 2,
            WeightFormat::Q8_0 => 34,
            WeightFormat::Q4_0 => 18,
            WeightFormat::Q4_1 => 20,
            WeightFormat::Q5_0 => 22,
            WeightFormat::Q4K => 144,
            WeightFormat::Q5K => 176,
            WeightFormat::Q6K => 210,
        }
    }

    /// What a matrix counts as once it is packed: in the same format, unless that has no kernels of its own (decision 0021).
    pub const fn packed(self) -> WeightFormat {
        match self {
            WeightFormat::Q5_0 => WeightFormat::Q8_0,
            WeightFormat::F32
            | WeightFormat::F16
            | WeightFormat::Bf16
            | WeightFormat::Q8_0
            | WeightFormat::Q4_0
            | WeightFormat::Q4_1
            | WeightFormat::Q4K
            | WeightFormat::Q5K
            | WeightFormat::Q6K => self,
        }
    }

    /// Bytes of one row of `columns` weights; `None` when it is no whole number of blocks or overflows.
    pub const fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block()) {
            return None;
        }
        (columns / self.block()).checked_mul(self.block_bytes())
    }

    /// As [`WeightFormat::row_bytes`], once the row is packed.
    pub const fn packed_row_bytes(self, columns: usize) -> Option<usize> {
        match (self, self.row_bytes(columns)) {
            (_, None) => None,
            // Scales and minima in six bits have bytes of their own then.
            (WeightFormat::Q4K | WeightFormat::Q5K, Some(_)) => {
                (columns / self.block()).checked_mul(self.block_bytes() + 4)
            }
            (_, Some(_)) => self.packed().row_bytes(columns),
        }
    }
}

/// How keys and values are kept. What is read back is what was stored, also within a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum KvFormat {
    /// Rounded to nearest, ties to even.
    #[default]
    Bf16,
    /// int8, with a scale in f32 for each position and head, by the rule of [`crate::scalar::activation_scale`]: for heads
    /// of 64 a little over half the bytes.
    Int8,
}

impl KvFormat {
    /// Bytes of one position's key (or value) of one head.
    pub const fn head_bytes(self, head_dim: usize) -> usize {
        match self {
            KvFormat::Bf16 => 2 * head_dim,
            KvFormat::Int8 => head_dim + size_of::<f32>(),
        }
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvFormat::Bf16 => "bf16",
            KvFormat::Int8 => "int8",
        })
    }
}

/// Errors unless `found` is the bytes of `(outputs, inputs)` weights.
pub(crate) fn matrix_bytes(
    format: WeightFormat,
    outputs: usize,
    inputs: usize,
    found: usize,
) -> Result<(), OpsError> {
    let row = format
        .row_bytes(inputs)
        .ok_or(OpsError::WrongBlock { format, inputs })?;
    let expected = row
        .checked_mul(outputs)
        .ok_or(OpsError::OutOfMemory { bytes: usize::MAX })?;
    if found == expected {
        Ok(())
    } else {
        Err(OpsError::WrongLength {
            format,
            outputs,
            inputs,
            expected,
            found,
        })
    }
}
