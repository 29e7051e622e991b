//! Quantised rows of activations.

use crate::InputPrecision;
use crate::scalar::{BLOCK, activation_scale};

/// 32 activations: `x ≈ d · q`.
pub struct Block {
    pub d: f32,
    pub q: [i8; BLOCK],
}

impl Block {
    /// `x` has 32 values.
    fn quantise(x: &[f32]) -> Block {
        // Magnitudes order like their bits, and a NaN is above all of them.
        let magnitude_max = x
            .iter()
            .map(|x| x.abs().to_bits())
            .max()
            .map_or(0.0, f32::from_bits);
        let (d, inverse) = activation_scale(magnitude_max);
        let q = std::array::from_fn(|i| (x[i] * inverse).round_ties_even() as i8);
        Block { d, q }
    }

    /// Σq, exactly.
    pub fn sum(&self) -> i32 {
        self.q.iter().map(|q| i32::from(*q)).sum()
    }
}

/// The terms of each block, block by block. `row.len()` is a multiple of 32.
pub fn quantise(row: &[f32], precision: InputPrecision) -> Vec<Block> {
    row.chunks_exact(BLOCK)
        .flat_map(|block| terms(block, precision))
        .collect()
}

/// Each term stands for what those before it left over.
fn terms(block: &[f32], precision: InputPrecision) -> Vec<Block> {
    let mut rest = block.to_vec();
    (0..precision.terms())
        .map(|_| {
            let term = Block::quantise(&rest);
            for (rest, q) in rest.iter_mut().zip(term.q) {
                *rest = (-term.d).mul_add(f32::from(q), *rest);
            }
            term
        })
        .collect()
}
