//! Weights in four bits with scales in six, as llama.cpp's `Q4_K` stores them.

use crate::scalar::{BLOCK, f16_to_f32, f32_to_f16};

/// In which a block of 256 weights is stored.
pub const BYTES: usize = 144;
/// Parts of a block, each of 32 weights with a scale and a minimum.
const PARTS: usize = 8;
/// A part as a block of `Q4_1`.
const PART_BYTES: usize = 20;

const HALVES: usize = 4;
const SCALES: usize = 12;

/// The parts of a block as `Q4_1` stores such blocks. Scale and minimum of each, `d · s` and `-e · t`, are exact in f32, and
/// rounded to f16.
pub fn parts(block: &[u8; BYTES]) -> [[u8; PART_BYTES]; PARTS] {
    let (halves, rest) = block.split_at(HALVES);
    let (scales, nibbles) = rest.split_at(SCALES);
    let [d, e] = [0, 2].map(|at| f16_to_f32(u16::from_le_bytes([halves[at], halves[at + 1]])));
    std::array::from_fn(|part| {
        let (scale, minimum) = six_bits(scales, part);
        let mut stored = [0; PART_BYTES];
        stored[..2].copy_from_slice(&f32_to_f16(d * f32::from(scale)).to_le_bytes());
        stored[2..4].copy_from_slice(&f32_to_f16(-(e * f32::from(minimum))).to_le_bytes());
        // Two parts share bytes: of the same places, low halves and high ones.
        let nibble = |place: usize| nibbles[part / 2 * BLOCK + place] >> (part % 2 * 4) & 15;
        for (place, byte) in stored[4..].iter_mut().enumerate() {
            *byte = nibble(place) | nibble(place + BLOCK / 2) << 4;
        }
        stored
    })
}

/// Scale and minimum of a part. The first four bytes have scales of the first four parts, the next four their minima, and the last four
/// the low bits of both of the other parts, whose high bits are on top of the first eight bytes.
fn six_bits(scales: &[u8], part: usize) -> (u8, u8) {
    match part {
        0..4 => (scales[part] & 63, scales[part + 4] & 63),
        _ => (
            scales[part + 4] & 15 | scales[part - 4] >> 6 << 4,
            scales[part + 4] >> 4 | scales[part] >> 6 << 4,
        ),
    }
}
