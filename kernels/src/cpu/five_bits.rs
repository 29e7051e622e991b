//! Weights in five bits, as llama.cpp's `Q5_0` and `Q5_K` store them.

use crate::WeightFormat;
use crate::cpu::four_bits::{HALVES, PARTS, SCALES, nibbles_of_part, scale_and_minimum};
use crate::scalar::BLOCK;

/// In which `Q5_0` stores a block of 32 weights.
pub const BYTES: usize = 22;
/// The same as a block of `Q8_0`.
const IN_BYTES: usize = 34;

/// In which `Q5_K` stores a block of 256 weights.
pub const SUPER_BYTES: usize = 176;
/// In which a part of it is kept.
const PART_BYTES: usize = 22;

const _: () = assert!(WeightFormat::Q5K.packed_row_bytes(256).unwrap() == PARTS * PART_BYTES + HALVES);

/// A block as `Q8_0` stores it: with the same scale, and the integers `q − 16` in bytes. Nothing is rounded.
pub fn in_bytes(block: &[u8; BYTES]) -> [u8; IN_BYTES] {
    let (scale, rest) = block.split_at(2);
    let (high, nibbles) = rest.split_at(4);
    let mut stored = [0; IN_BYTES];
    stored[..2].copy_from_slice(scale);
    for (k, byte) in stored[2..].iter_mut().enumerate() {
        let low = nibbles[k % (BLOCK / 2)] >> (k / (BLOCK / 2) * 4) & 15;
        let high = high[k / 8] >> (k % 8) & 1;
        *byte = (high << 4 | low).wrapping_sub(16);
    }
    stored
}

/// The parts of a block of `Q5_K`, each as [`four_bits::parts`](crate::cpu::four_bits::parts) has them, and then four bytes with the
/// fifth bits: in byte `i` those of weights `i`, `i + 4` and so on, from the lowest on.
pub fn parts(block: &[u8; SUPER_BYTES]) -> [[u8; PART_BYTES]; PARTS] {
    let (_, rest) = block.split_at(HALVES);
    let (scales, rest) = rest.split_at(SCALES);
    let (fifth, nibbles) = rest.split_at(BLOCK);
    std::array::from_fn(|part| {
        let mut kept = [0; PART_BYTES];
        let (low, high) = kept.split_at_mut(2 + BLOCK / 2);
        low[..2].copy_from_slice(&scale_and_minimum(scales, part));
        low[2..].copy_from_slice(&nibbles_of_part(nibbles, part));
        // As stored, each byte has those of one place, of all parts.
        let fifth = |place: usize| fifth[place] >> part & 1;
        for (i, byte) in high.iter_mut().enumerate() {
            *byte = (0..BLOCK / 4).fold(0, |byte, j| byte | fifth(i + 4 * j) << j);
        }
        kept
    })
}
