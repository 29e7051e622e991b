//! Sums of products of bf16.

use crate::scalar::BLOCK;

/// In blocks of 32, whose even and odd products have a sum each, as `TDPBF16PS` adds them (Intel's Software Developer's Manual,
/// volume 2; decision 0015).
pub fn dot(x: &[f32], y: impl Iterator<Item = f32>) -> f32 {
    let products: Vec<(f32, f32)> = x.iter().copied().zip(y).collect();
    products.chunks(BLOCK).fold(0.0, |acc, block| {
        let mut sums = [0.0f32; 2];
        for (k, (x, y)) in block.iter().enumerate() {
            sums[k % 2] = x.mul_add(*y, sums[k % 2]);
        }
        acc + (sums[0] + sums[1])
    })
}
