//! Weights in five bits, as llama.cpp's `Q5_0` stores them.

use crate::scalar::BLOCK;

/// In which a block of 32 weights is stored.
pub const BYTES: usize = 22;
/// The same as a block of `Q8_0`.
const IN_BYTES: usize = 34;

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
