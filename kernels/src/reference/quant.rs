//! Quantised rows of activations.

use crate::InputPrecision;
use crate::scalar::{BLOCK, FINE_STEPS, activation_scale};

/// 32 activations: `x ≈ d · q`.
pub struct Block {
    pub d: f32,
    pub q: [i32; BLOCK],
}

impl Block {
    /// `x` has 32 values.
    fn quantise(x: &[f32], precision: InputPrecision) -> Block {
        // Magnitudes order like their bits, and a NaN is above all of them.
        let magnitude_max = x
            .iter()
            .map(|x| x.abs().to_bits())
            .max()
            .map_or(0.0, f32::from_bits);
        let (d, inverse) = activation_scale(magnitude_max);
        let steps = match precision {
            InputPrecision::OneTerm => 1.0,
            InputPrecision::TwoTerms => FINE_STEPS as f32,
        };
        Block {
            d: d / steps,
            q: std::array::from_fn(|i| (x[i] * inverse * steps).round_ties_even() as i32),
        }
    }

    /// Σq, exactly.
    pub fn sum(&self) -> i32 {
        self.q.iter().sum()
    }
}

/// `row.len()` is a multiple of 32.
pub fn quantise(row: &[f32], precision: InputPrecision) -> Vec<Block> {
    row.chunks_exact(BLOCK)
        .map(|block| Block::quantise(block, precision))
        .collect()
}
