//! Products with a weight matrix.

use crate::format::matrix_bytes;
use crate::reference::pairs;
use crate::reference::quant::{Block, quantise};
use crate::scalar::{BLOCK, bf16_to_f32, f16_to_f32, factor, factor_bf16};
use crate::tensor::Tensor;
use crate::{InputPrecision, OpsError, WeightFormat};

pub fn matmul(weights: &[&Matrix], x: &Tensor, precision: InputPrecision, out: &mut Tensor) {
    let outputs: usize = weights.iter().map(|matrix| matrix.outputs).sum();
    assert_eq!(
        (out.rows(), out.columns()),
        (x.rows(), outputs),
        "the products side by side"
    );
    for row in 0..x.rows() {
        let mut column = 0;
        for matrix in weights {
            matrix.multiply(
                x.row(row),
                precision,
                &mut out.row_mut(row)[column..][..matrix.outputs],
            );
            column += matrix.outputs;
        }
    }
}

/// A weight matrix `(outputs, inputs)`, as stored in the file.
pub struct Matrix {
    format: WeightFormat,
    outputs: usize,
    inputs: usize,
    bytes: Vec<u8>,
}

impl Matrix {
    pub fn new(
        format: WeightFormat,
        bytes: &[u8],
        outputs: usize,
        inputs: usize,
    ) -> Result<Matrix, OpsError> {
        matrix_bytes(format, outputs, inputs, bytes.len())?;
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len())
            .map_err(|_| OpsError::OutOfMemory { bytes: bytes.len() })?;
        copy.extend_from_slice(bytes);
        Ok(Matrix {
            format,
            outputs,
            inputs,
            bytes: copy,
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// One weight, dequantised with one rounding.
    pub fn weight(&self, output: usize, input: usize) -> f32 {
        let block = self.block(output, input);
        let k = input % self.format.block();
        match self.format {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => block.float(),
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q5_0 => {
                block.scale() * block.integer(k) as f32
            }
            WeightFormat::Q4_1 | WeightFormat::Q4K | WeightFormat::Q5K => block
                .scale()
                .mul_add(block.integer(k % BLOCK) as f32, block.minimum()),
            WeightFormat::Q6K => block.scale() * block.integer(k % BLOCK) as f32,
        }
    }

    fn multiply(&self, x: &[f32], precision: InputPrecision, out: &mut [f32]) {
        assert_eq!(x.len(), self.inputs, "a row of the matrix's inputs");
        match self.format {
            WeightFormat::F32 | WeightFormat::F16 => {
                for (output, out) in out.iter_mut().enumerate() {
                    *out = self.dot_floats(output, x);
                }
            }
            WeightFormat::Bf16 => {
                let x: Vec<f32> = x.iter().copied().map(factor).collect();
                for (output, out) in out.iter_mut().enumerate() {
                    *out = self.dot_pairs(output, &x);
                }
            }
            WeightFormat::Q8_0
            | WeightFormat::Q4_0
            | WeightFormat::Q4_1
            | WeightFormat::Q5_0
            | WeightFormat::Q4K
            | WeightFormat::Q5K
            | WeightFormat::Q6K => {
                let x = quantise(x, precision);
                for (output, out) in out.iter_mut().enumerate() {
                    *out = self.dot_blocks(output, &x);
                }
            }
        }
    }

    fn dot_floats(&self, output: usize, x: &[f32]) -> f32 {
        let mut acc = 0.0f32;
        for (input, x) in x.iter().enumerate() {
            acc = self.block(output, input).float().mul_add(*x, acc);
        }
        acc
    }

    fn dot_pairs(&self, output: usize, x: &[f32]) -> f32 {
        let weights = (0..x.len()).map(|k| self.weight(output, k));
        pairs::dot(x, weights)
    }

    fn dot_blocks(&self, output: usize, x: &[Block]) -> f32 {
        let mut acc = 0.0f32;
        for (index, x) in x.iter().enumerate() {
            let w = self.block(output, index * BLOCK);
            let dot: i32 = (0..BLOCK).map(|k| w.integer(k) * x.q[k]).sum();
            acc = (dot as f32).mul_add(w.scale() * x.d, acc);
            if matches!(
                self.format,
                WeightFormat::Q4_1 | WeightFormat::Q4K | WeightFormat::Q5K
            ) {
                acc = w.minimum().mul_add(x.d * x.sum() as f32, acc);
            }
        }
        acc
    }

    /// That the weight of an input is in.
    fn block(&self, output: usize, input: usize) -> StoredBlock<'_> {
        assert!(output < self.outputs, "row {output} of {}", self.outputs);
        let (bytes, weights) = (self.format.block_bytes(), self.format.block());
        let at = (output * (self.inputs / weights) + input / weights) * bytes;
        StoredBlock {
            format: self.format,
            bytes: &self.bytes[at..][..bytes],
            part: input % weights / BLOCK,
        }
    }
}

/// One block (of 1, 32 or 256 weights) as stored.
struct StoredBlock<'a> {
    format: WeightFormat,
    bytes: &'a [u8],
    /// Which 32 of its weights are meant.
    part: usize,
}

impl StoredBlock<'_> {
    /// The weight of a float format.
    fn float(&self) -> f32 {
        match self.format {
            WeightFormat::F32 => {
                f32::from_le_bytes([self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]])
            }
            WeightFormat::F16 => self.half(0),
            WeightFormat::Bf16 => {
                let stored = bf16_to_f32(u16::from_le_bytes([self.bytes[0], self.bytes[1]]));
                bf16_to_f32(factor_bf16(stored))
            }
            WeightFormat::Q8_0
            | WeightFormat::Q4_0
            | WeightFormat::Q4_1
            | WeightFormat::Q5_0
            | WeightFormat::Q4K
            | WeightFormat::Q5K
            | WeightFormat::Q6K => panic!("not a float format"),
        }
    }

    /// The integer of weight `k` of the part, of a quantised format; that of Q6_K with the scale of its 16.
    fn integer(&self, k: usize) -> i32 {
        match self.format {
            WeightFormat::Q8_0 => i32::from(self.bytes[2 + k] as i8),
            WeightFormat::Q4_0 => self.nibble(2, k) - 8,
            WeightFormat::Q4_1 => self.nibble(4, k),
            WeightFormat::Q5_0 => {
                let fifth = u32::from_le_bytes([self.bytes[2], self.bytes[3], self.bytes[4], self.bytes[5]]);
                self.nibble(6, k) + 16 * (fifth >> k & 1) as i32 - 16
            }
            WeightFormat::Q4K => self.nibble_of_part(16, k),
            // Each byte has those of one place, of all parts.
            WeightFormat::Q5K => {
                self.nibble_of_part(48, k) + 16 * i32::from(self.bytes[16 + k] >> self.part & 1)
            }
            WeightFormat::Q6K => self.six_bits(self.part * BLOCK + k),
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => {
                panic!("not a quantised format")
            }
        }
    }

    /// Weight `k` of Q6_K with its scale. Both halves of the block have 64 bytes of low bits and 32 of high ones: of the four quarters
    /// of a half, the first and the third share bytes of low bits, the second and the fourth do, and all four those of high ones.
    fn six_bits(&self, k: usize) -> i32 {
        let (half, quarter, place) = (k / 128, k % 128 / 32, k % 32);
        let low = self.bytes[64 * half + 32 * (quarter % 2) + place] >> (4 * (quarter / 2)) & 15;
        let high = self.bytes[128 + 32 * half + place] >> (2 * quarter) & 3;
        let scale = self.bytes[192 + k / 16] as i8;
        i32::from(scale) * (i32::from(high << 4 | low) - 32)
    }

    /// Weights 0..16 are the low halves, 16..32 the high halves.
    fn nibble(&self, first: usize, k: usize) -> i32 {
        i32::from(self.bytes[first + k % 16] >> (k / 16 * 4) & 15)
    }

    /// Of super-blocks with nibbles from `first` on: parts take turns in low and high halves.
    fn nibble_of_part(&self, first: usize, k: usize) -> i32 {
        i32::from(self.bytes[first + self.part / 2 * BLOCK + k] >> (self.part % 2 * 4) & 15)
    }

    fn scale(&self) -> f32 {
        match self.format {
            WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 | WeightFormat::Q5_0 => self.half(0),
            WeightFormat::Q4K | WeightFormat::Q5K => self.half(0) * self.six_bits_of_part(4, 15, 0),
            WeightFormat::Q6K => self.half(208),
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => {
                panic!("not a quantised format")
            }
        }
    }

    fn minimum(&self) -> f32 {
        match self.format {
            WeightFormat::Q4_1 => self.half(2),
            WeightFormat::Q4K | WeightFormat::Q5K => -(self.half(2) * self.six_bits_of_part(8, 240, 4)),
            WeightFormat::F32
            | WeightFormat::F16
            | WeightFormat::Bf16
            | WeightFormat::Q8_0
            | WeightFormat::Q4_0
            | WeightFormat::Q5_0
            | WeightFormat::Q6K => panic!("not a format with minima"),
        }
    }

    /// Of Q4_K and Q5_K, the scale or the minimum: from four bytes at `first` for the first four parts, whose upper two bits are the others'; the
    /// lower four of these are those in `mask` of bytes at 12.
    fn six_bits_of_part(&self, first: usize, mask: u8, shift: u32) -> f32 {
        let byte = self.bytes[first + self.part % 4];
        f32::from(match self.part {
            ..4 => byte % 64,
            _ => byte / 64 * 16 + ((self.bytes[12 + self.part % 4] & mask) >> shift),
        })
    }

    fn half(&self, at: usize) -> f32 {
        f16_to_f32(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }
}
