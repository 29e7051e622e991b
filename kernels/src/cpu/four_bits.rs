//! Weights in four bits with scales in six, as llama.cpp's `Q4_K` stores them.

use crate::WeightFormat;
use crate::scalar::BLOCK;

/// In which a block of 256 weights is stored.
pub const BYTES: usize = 144;
/// Parts of a block, each of 32 weights with a scale and a minimum.
pub const PARTS: usize = 8;
/// In which a part is kept.
const PART_BYTES: usize = 18;

/// Scale and minimum of the whole block in f16.
pub const HALVES: usize = 4;
/// Scales and minima of the parts.
pub const SCALES: usize = 12;

const _: () = assert!(WeightFormat::Q4K.packed_row_bytes(256).unwrap() == PARTS * PART_BYTES + HALVES);

/// The parts of a block, each as `Q4_0` stores blocks, but for scale and minimum in a byte each where that has its scale.
pub fn parts(block: &[u8; BYTES]) -> [[u8; PART_BYTES]; PARTS] {
    let (_, rest) = block.split_at(HALVES);
    let (scales, nibbles) = rest.split_at(SCALES);
    std::array::from_fn(|part| {
        let mut kept = [0; PART_BYTES];
        kept[..2].copy_from_slice(&scale_and_minimum(scales, part));
        kept[2..].copy_from_slice(&nibbles_of_part(nibbles, part));
        kept
    })
}

/// Two parts share bytes: of the same places, low halves and high ones. Here places 16 apart do.
pub fn nibbles_of_part(nibbles: &[u8], part: usize) -> [u8; BLOCK / 2] {
    let nibble = |place: usize| nibbles[part / 2 * BLOCK + place] >> (part % 2 * 4) & 15;
    std::array::from_fn(|place| nibble(place) | nibble(place + BLOCK / 2) << 4)
}

/// Those of a part, which have six bits. The first four bytes have scales of the first four parts, the next four their minima, and the
/// last four the low bits of both of the other parts, whose high bits are on top of the first eight bytes.
pub fn scale_and_minimum(scales: &[u8], part: usize) -> [u8; 2] {
    match part {
        0..4 => [scales[part] & 63, scales[part + 4] & 63],
        _ => [
            scales[part + 4] & 15 | scales[part - 4] >> 6 << 4,
            scales[part + 4] >> 4 | scales[part] >> 6 << 4,
        ],
    }
}
