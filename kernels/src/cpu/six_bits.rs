//! Weights in six bits, as llama.cpp's `Q6_K` stores them.

use crate::WeightFormat;
use crate::scalar::BLOCK;

/// In which a block of 256 weights is stored.
pub const BYTES: usize = 210;
/// Parts of a block, each of 32 weights with two scales.
const PARTS: usize = 8;
/// In which a part is kept.
const PART_BYTES: usize = 26;

const LOW: usize = 128;
const HIGH: usize = 64;
const SCALES: usize = 16;
/// Where the scale of the whole block is, in f16.
pub const SCALE: usize = LOW + HIGH + SCALES;

const _: () = assert!(WeightFormat::Q6K.packed_row_bytes(256).unwrap() == PARTS * PART_BYTES + 2);

/// The parts of a block: two scales in bytes, for 16 weights each; 16 bytes with the low four bits of weights 0..16 in low halves and
/// of 16..32 in high ones; and 8 with the high two, of weights `i`, `i + 4`, `i + 8` and `i + 12` from the lowest on in byte `i`,
/// and of those 16 further in byte `i + 4`.
pub fn parts(block: &[u8; BYTES]) -> [[u8; PART_BYTES]; PARTS] {
    let (low, rest) = block.split_at(LOW);
    let (high, scales) = rest.split_at(HIGH);
    std::array::from_fn(|part| {
        // Two halves of the block have four parts each, whose bits lie on top of each other.
        let (half, quarter) = (part / 4, part % 4);
        let low = |k: usize| low[64 * half + quarter % 2 * BLOCK + k] >> (quarter / 2 * 4) & 15;
        let high = |k: usize| high[32 * half + k] >> (quarter * 2) & 3;
        let mut kept = [0; PART_BYTES];
        let (own, bits) = kept.split_at_mut(2);
        own.copy_from_slice(&scales[2 * part..][..2]);
        let (nibbles, pairs) = bits.split_at_mut(BLOCK / 2);
        for (k, byte) in nibbles.iter_mut().enumerate() {
            *byte = low(k) | low(k + BLOCK / 2) << 4;
        }
        for (i, byte) in pairs.iter_mut().enumerate() {
            let first = i / 4 * (BLOCK / 2) + i % 4;
            *byte = (0..4).fold(0, |byte, j| byte | high(first + 4 * j) << (2 * j));
        }
        kept
    })
}
