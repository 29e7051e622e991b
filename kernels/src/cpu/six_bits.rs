//! Weights in six bits, as llama.cpp's `Q6_K` stores them.

use crate::scalar::f16_to_f32;

/// Of one block.
pub const WEIGHTS: usize = 256;
/// In which it is stored.
pub const BYTES: usize = 210;

const LOW: usize = 128;
const HIGH: usize = 64;

/// A block's weights. They are exact: `d` has 11 significant bits, scale and integer have at most 12 together, and f32 has 24.
///
/// The block has two halves of 128 weights, and these have four quarters, whose bits lie on top of each other.
pub fn dequantise(block: &[u8; BYTES]) -> [f32; WEIGHTS] {
    let (low, rest) = block.split_at(LOW);
    let (high, rest) = rest.split_at(HIGH);
    let (scales, d) = rest.split_at(WEIGHTS / 16);
    let d = f16_to_f32(u16::from_le_bytes([d[0], d[1]]));
    let mut weights = [0.0; WEIGHTS];
    let halves = low.chunks_exact(LOW / 2).zip(high.chunks_exact(HIGH / 2));
    let halves = halves.zip(scales.chunks_exact(8));
    for (weights, ((low, high), scales)) in weights.chunks_exact_mut(WEIGHTS / 2).zip(halves) {
        for (place, high) in high.iter().enumerate() {
            let low = [low[place], low[place + 32]];
            let quarters = [
                low[0] & 15 | (high & 3) << 4,
                low[1] & 15 | (high >> 2 & 3) << 4,
                low[0] >> 4 | (high >> 4 & 3) << 4,
                low[1] >> 4 | high >> 6 << 4,
            ];
            for (quarter, q) in quarters.into_iter().enumerate() {
                let scale = i32::from(scales[2 * quarter + place / 16] as i8);
                weights[32 * quarter + place] = d * (scale * (i32::from(q) - 32)) as f32;
            }
        }
    }
    weights
}
