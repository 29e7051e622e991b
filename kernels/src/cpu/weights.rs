//! Weight matrices as the kernels read them.

use crate::cpu::pairing::{Pairing, QUAD};
use crate::cpu::scales::SUPER_BLOCK;
use crate::cpu::{five_bits, four_bits, six_bits};
use crate::format::matrix_bytes;
use crate::memory::{ALIGNMENT, Memory};
use crate::scalar::{BLOCK, bf16_to_f32, f16_to_f32, factor_bf16};
use crate::{OpsError, PackedBytes, WeightFormat};
use std::ops::{Deref, Range};

/// Output rows that are interleaved, one per vector lane.
pub const GROUP: usize = 16;

/// A matrix `(outputs, inputs)` in groups of 16 output rows, so that one vector holds the same input of 16 outputs and
/// every output accumulates in a lane of its own: no sum is ever split, whatever the vector's width.
///
/// A group is contiguous and starts on a cache line; rows missing in the last group are zero. Within a group:
///
/// * `F32`, `F16`: `[input][row]`, elements as stored;
/// * `Bf16`: `[word][row]`, words of two inputs as [`Pairing`] says, which are as [`crate::scalar::factor_bf16`] has them, with zeros
///   up to a multiple of 32 inputs;
/// * `Q8_0`: `[block][k / 4][row][k mod 4]` bytes, then `[block][row]` f16 scales; and `Q5_0`, which counts as it from here on;
/// * `Q4_0`, `Q4_1`: `[block][4][row][4]` bytes, of which the low halves are weights 0..16 of the block and the high
///   halves 16..32, as in the file; then `[block][row]` f16 scales, for Q4_1 `[block][scale or minimum][row]`;
/// * `Q4K`: blocks of 32 as those of `Q4_0`, then `[block][row][scale or minimum]` bytes, then `[block of 256][scale or minimum][row]`
///   f16;
/// * `Q5K`, in blocks of 32: `[block][5][row][4]` bytes, of which the first four are as those of `Q4_0` and the last has fifth bits as
///   [`five_bits::parts`] has them; the rest as `Q4K`;
/// * `Q6K`, in blocks of 32: `[block][6][row][4]` bytes, of which the first four are as those of `Q4_0` and the others have high bits
///   as [`six_bits::parts`] has them; then `[block][row][2]` bytes, the scales of 16 each, then `[block of 256][row]` f16.
pub struct Weights {
    /// Once packed: see [`WeightFormat::packed`].
    pub format: WeightFormat,
    pub outputs: usize,
    pub inputs: usize,
    /// How weights of bf16 lie.
    pub pairing: Pairing,
    /// A multiple of the cache line.
    pub group_bytes: usize,
    pub bytes: Bytes,
}

/// Of packed weights.
pub enum Bytes {
    Own(Memory<u8>),
    Kept(PackedBytes),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Own(bytes) => bytes,
            Bytes::Kept(bytes) => bytes,
        }
    }
}

impl Weights {
    pub fn pack(
        format: WeightFormat,
        pairing: Pairing,
        bytes: &[u8],
        outputs: usize,
        inputs: usize,
    ) -> Result<Weights, OpsError> {
        matrix_bytes(format, outputs, inputs, bytes.len())?;
        let row_bytes = bytes.len().checked_div(outputs).unwrap_or(0);
        let too_large = OpsError::OutOfMemory { bytes: usize::MAX };
        let group_bytes = group_bytes(format, inputs)?.ok_or(too_large)?;
        let mut packed = Memory::zeroed_in_huge_pages(outputs.div_ceil(GROUP) * group_bytes)?;
        let places = Places::of(format, pairing, inputs);
        for (output, row) in bytes.chunks_exact(row_bytes.max(1)).enumerate() {
            let group = &mut packed[output / GROUP * group_bytes..][..group_bytes];
            pack_row(format, places, output % GROUP, row, group);
        }
        Ok(Weights {
            format: format.packed(),
            outputs,
            inputs,
            pairing,
            group_bytes,
            bytes: Bytes::Own(packed),
        })
    }

    /// What `pack` made of a matrix of this shape.
    pub fn adopt(
        format: WeightFormat,
        pairing: Pairing,
        packed: PackedBytes,
        outputs: usize,
        inputs: usize,
    ) -> Result<Weights, OpsError> {
        let too_large = OpsError::OutOfMemory { bytes: usize::MAX };
        let group_bytes = group_bytes(format, inputs)?.ok_or(too_large.clone())?;
        let expected = outputs
            .div_ceil(GROUP)
            .checked_mul(group_bytes)
            .ok_or(too_large)?;
        match packed.len() == expected {
            true => Ok(Weights {
                format: format.packed(),
                outputs,
                inputs,
                pairing,
                group_bytes,
                bytes: Bytes::Kept(packed),
            }),
            false => Err(OpsError::WrongLength {
                format,
                outputs,
                inputs,
                expected,
                found: packed.len(),
            }),
        }
    }

    pub fn groups(&self) -> usize {
        self.outputs.div_ceil(GROUP)
    }

    pub fn blocks(&self) -> usize {
        self.inputs / kernel_block(self.format)
    }

    /// One row, dequantised; `out` has `inputs` values.
    pub fn dequantise_row(&self, output: usize, out: &mut [f32]) {
        assert!(output < self.outputs, "row {output} of {}", self.outputs);
        let row = Row {
            format: self.format,
            places: Places::of(self.format, self.pairing, self.inputs),
            group: &self.bytes[output / GROUP * self.group_bytes..][..self.group_bytes],
            lane: output % GROUP,
        };
        for (index, out) in out.chunks_exact_mut(kernel_block(self.format)).enumerate() {
            row.dequantise_block(index, out);
        }
    }
}

/// Weights that a kernel takes together.
fn kernel_block(format: WeightFormat) -> usize {
    format.block().min(BLOCK)
}

/// `None` when no machine has so many.
fn group_bytes(format: WeightFormat, inputs: usize) -> Result<Option<usize>, OpsError> {
    let wrong_block = OpsError::WrongBlock { format, inputs };
    format.row_bytes(inputs).ok_or(wrong_block)?;
    let row_bytes = format.packed_row_bytes(inputs);
    let row_bytes = match format {
        WeightFormat::Bf16 => row_bytes.and_then(|bytes| bytes.checked_next_multiple_of(BLOCK * 2)),
        WeightFormat::F32
        | WeightFormat::F16
        | WeightFormat::Q8_0
        | WeightFormat::Q4_0
        | WeightFormat::Q4_1
        | WeightFormat::Q5_0
        | WeightFormat::Q4K
        | WeightFormat::Q5K
        | WeightFormat::Q6K => row_bytes,
    };
    Ok(row_bytes
        .and_then(|bytes| bytes.checked_mul(GROUP))
        .and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT)))
}

fn pack_row(format: WeightFormat, places: Places, lane: usize, row: &[u8], group: &mut [u8]) {
    match format {
        WeightFormat::Bf16 => {
            pack_blocks::<2>(places, lane, row, group, |piece| {
                factor_bf16(bf16_to_f32(u16::from_le_bytes(piece))).to_le_bytes()
            });
        }
        WeightFormat::F16 => pack_blocks::<2>(places, lane, row, group, |piece| piece),
        WeightFormat::F32 | WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 => {
            pack_blocks::<4>(places, lane, row, group, |piece| piece);
        }
        WeightFormat::Q5_0 => {
            let blocks = row.as_chunks::<{ five_bits::BYTES }>().0;
            let bytes: Vec<[u8; _]> = blocks.iter().map(five_bits::in_bytes).collect();
            pack_blocks::<4>(places, lane, bytes.as_flattened(), group, |piece| piece);
        }
        WeightFormat::Q4K => {
            pack_super_blocks(places, lane, row, group, four_bits::parts, 0..four_bits::HALVES);
        }
        WeightFormat::Q5K => {
            pack_super_blocks(places, lane, row, group, five_bits::parts, 0..four_bits::HALVES);
        }
        WeightFormat::Q6K => {
            let scale = six_bits::SCALE..six_bits::BYTES;
            pack_super_blocks(places, lane, row, group, six_bits::parts, scale);
        }
    }
}

/// Blocks of 256, which `parts` takes apart, and at `halves` have what they have in f16.
fn pack_super_blocks<const BYTES: usize, const PART: usize>(
    places: Places,
    lane: usize,
    row: &[u8],
    group: &mut [u8],
    parts: fn(&[u8; BYTES]) -> [[u8; PART]; SUPER_BLOCK],
    halves: Range<usize>,
) {
    let blocks = row.as_chunks::<BYTES>().0;
    let parts: Vec<[u8; PART]> = blocks.iter().flat_map(parts).collect();
    pack_blocks::<4>(places, lane, parts.as_flattened(), group, |piece| piece);
    for (index, block) in blocks.iter().enumerate() {
        for (half, bytes) in block[halves.clone()].as_chunks::<2>().0.iter().enumerate() {
            group[places.super_half(index, half, lane)..][..2].copy_from_slice(bytes);
        }
    }
}

/// `PIECE` bytes at a time: what is known when this is compiled is moved without asking how much it is.
fn pack_blocks<const PIECE: usize>(
    places: Places,
    lane: usize,
    row: &[u8],
    group: &mut [u8],
    packed: impl Fn([u8; PIECE]) -> [u8; PIECE],
) {
    assert_eq!(PIECE, places.piece_bytes, "pieces of the format");
    let block_bytes = places.halves * 2 + places.block_bytes / GROUP;
    for (index, block) in row.chunks_exact(block_bytes).enumerate() {
        let (halves, body) = block.split_at(places.halves * 2);
        for (half, bytes) in halves.as_chunks::<2>().0.iter().enumerate() {
            group[places.half(index, half, lane)..][..2].copy_from_slice(bytes);
        }
        for (piece, bytes) in body.as_chunks::<PIECE>().0.iter().enumerate() {
            group[places.piece(index, piece, lane)..][..PIECE].copy_from_slice(&packed(*bytes));
        }
    }
}

/// Where in a group the parts of a block are.
#[derive(Clone, Copy)]
struct Places {
    /// Numbers of 16 bits before a block's body: scale, minimum, or both in bytes.
    halves: usize,
    /// f16 numbers of a block of 256.
    super_halves: usize,
    /// What one lane holds at a time of a block.
    piece_bytes: usize,
    /// From one lane to the next.
    lane_bytes: usize,
    /// Of 16 rows' bodies.
    block_bytes: usize,
    /// Where each of four blocks begins, from the first on.
    of_four: [usize; QUAD],
    /// Where the group's scales begin.
    halves_start: usize,
    /// Where those of blocks of 256 begin.
    super_halves_start: usize,
}

impl Places {
    /// Of a format as stored or as packed.
    fn of(format: WeightFormat, pairing: Pairing, inputs: usize) -> Places {
        let (halves, super_halves, pieces, piece_bytes, lane_bytes) = match format {
            WeightFormat::F32 => (0, 0, 1, 4, 4),
            WeightFormat::F16 => (0, 0, 1, 2, 2),
            WeightFormat::Bf16 => (0, 0, 1, 2, 4),
            WeightFormat::Q8_0 | WeightFormat::Q5_0 => (1, 0, 8, 4, 4),
            WeightFormat::Q4_0 => (1, 0, 4, 4, 4),
            WeightFormat::Q4_1 => (2, 0, 4, 4, 4),
            WeightFormat::Q4K => (1, 2, 4, 4, 4),
            WeightFormat::Q5K => (1, 2, 5, 4, 4),
            WeightFormat::Q6K => (1, 1, 6, 4, 4),
        };
        let block_bytes = pieces * piece_bytes * GROUP;
        let blocks = inputs / kernel_block(format);
        let of_four = match format {
            WeightFormat::Bf16 => [0, 1, 2, 3].map(|input| {
                let (word, shift) = pairing.place(input);
                word * GROUP * size_of::<u32>() + shift / 8
            }),
            WeightFormat::F32
            | WeightFormat::F16
            | WeightFormat::Q8_0
            | WeightFormat::Q4_0
            | WeightFormat::Q4_1
            | WeightFormat::Q5_0
            | WeightFormat::Q4K
            | WeightFormat::Q5K
            | WeightFormat::Q6K => [0, 1, 2, 3].map(|block| block * block_bytes),
        };
        Places {
            halves,
            super_halves,
            piece_bytes,
            lane_bytes,
            block_bytes,
            of_four,
            halves_start: blocks * block_bytes,
            super_halves_start: blocks * (block_bytes + halves * GROUP * 2),
        }
    }

    fn piece(&self, block: usize, piece: usize, lane: usize) -> usize {
        let first = block / QUAD * QUAD;
        first * self.block_bytes + self.of_four[block % QUAD] + (piece * GROUP + lane) * self.lane_bytes
    }

    fn half(&self, block: usize, half: usize, lane: usize) -> usize {
        self.halves_start + ((block * self.halves + half) * GROUP + lane) * 2
    }

    /// Of the `block`-th 256 weights.
    fn super_half(&self, block: usize, half: usize, lane: usize) -> usize {
        self.super_halves_start + ((block * self.super_halves + half) * GROUP + lane) * 2
    }
}

/// One lane of a group.
struct Row<'a> {
    format: WeightFormat,
    places: Places,
    group: &'a [u8],
    lane: usize,
}

impl Row<'_> {
    fn dequantise_block(&self, index: usize, out: &mut [f32]) {
        match self.format {
            WeightFormat::F32 => out[0] = f32::from_bits(u32::from_le_bytes(self.bytes(index, 0))),
            WeightFormat::F16 => out[0] = f16_to_f32(u16::from_le_bytes(self.bytes(index, 0))),
            WeightFormat::Bf16 => out[0] = bf16_to_f32(u16::from_le_bytes(self.bytes(index, 0))),
            WeightFormat::Q8_0 | WeightFormat::Q5_0 => self.dequantise_bytes(index, out),
            WeightFormat::Q4_0 => {
                let d = self.half(index, 0);
                self.dequantise_nibbles(index, out, |nibble| d * (nibble as f32 - 8.0));
            }
            WeightFormat::Q4_1 => {
                let (d, m) = (self.half(index, 0), self.half(index, 1));
                self.dequantise_nibbles(index, out, |nibble| d.mul_add(nibble as f32, m));
            }
            WeightFormat::Q4K => {
                let (d, m) = self.super_scale_minimum(index);
                self.dequantise_nibbles(index, out, |nibble| d.mul_add(nibble as f32, m));
            }
            WeightFormat::Q5K => self.dequantise_five_bits(index, out),
            WeightFormat::Q6K => self.dequantise_six_bits(index, out),
        }
    }

    fn dequantise_bytes(&self, index: usize, out: &mut [f32]) {
        let d = self.half(index, 0);
        for (piece, out) in out.chunks_exact_mut(4).enumerate() {
            let bytes: [u8; 4] = self.bytes(index, piece);
            out.iter_mut()
                .zip(bytes)
                .for_each(|(out, byte)| *out = d * f32::from(byte as i8));
        }
    }

    fn dequantise_nibbles(&self, index: usize, out: &mut [f32], value: impl Fn(u8) -> f32) {
        for k in 0..BLOCK / 2 {
            let byte = self.bytes::<4>(index, k / 4)[k % 4];
            out[k] = value(byte & 15);
            out[k + BLOCK / 2] = value(byte >> 4);
        }
    }

    fn dequantise_five_bits(&self, index: usize, out: &mut [f32]) {
        let (d, m) = self.super_scale_minimum(index);
        let fifth = self.bytes::<4>(index, 4);
        self.dequantise_nibbles(index, out, f32::from);
        for (k, out) in out.iter_mut().enumerate() {
            let fifth = fifth[k % 4] >> (k / 4) & 1;
            *out = d.mul_add(*out + f32::from(16 * fifth), m);
        }
    }

    fn dequantise_six_bits(&self, index: usize, out: &mut [f32]) {
        let d = self.super_half(index, 0);
        let scales = self.byte_pair(index).map(|scale| i32::from(scale as i8));
        for (half, out) in out.chunks_exact_mut(BLOCK / 2).enumerate() {
            let scale = scales[half];
            let high = self.bytes::<4>(index, 4 + half);
            for (k, out) in out.iter_mut().enumerate() {
                let low = self.bytes::<4>(index, k / 4)[k % 4] >> (4 * half) & 15;
                let high = high[k % 4] >> (k / 4 * 2) & 3;
                *out = d * (scale * (i32::from(high << 4 | low) - 32)) as f32;
            }
        }
    }

    fn bytes<const N: usize>(&self, index: usize, piece: usize) -> [u8; N] {
        let at = self.places.piece(index, piece, self.lane);
        std::array::from_fn(|i| self.group[at + i])
    }

    fn half(&self, index: usize, half: usize) -> f32 {
        self.f16_at(self.places.half(index, half, self.lane))
    }

    /// Of the 256 weights that block `index` is part of.
    fn super_half(&self, index: usize, half: usize) -> f32 {
        self.f16_at(self.places.super_half(index / SUPER_BLOCK, half, self.lane))
    }

    /// Of a format that has both for each 32 weights, in bytes.
    fn super_scale_minimum(&self, index: usize) -> (f32, f32) {
        let [scale, minimum] = self.byte_pair(index).map(f32::from);
        let (d, e) = (self.super_half(index, 0), self.super_half(index, 1));
        (d * scale, -e * minimum)
    }

    fn f16_at(&self, at: usize) -> f32 {
        f16_to_f32(u16::from_le_bytes([self.group[at], self.group[at + 1]]))
    }

    fn byte_pair(&self, index: usize) -> [u8; 2] {
        let at = self.places.half(index, 0, self.lane);
        [self.group[at], self.group[at + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn packed_matrices_are_adopted_as_they_were_and_only_whole() {
        let outputs = 50;
        for format in [
            WeightFormat::F32,
            WeightFormat::F16,
            WeightFormat::Bf16,
            WeightFormat::Q8_0,
            WeightFormat::Q4_0,
            WeightFormat::Q4_1,
            WeightFormat::Q5_0,
            WeightFormat::Q4K,
            WeightFormat::Q5K,
            WeightFormat::Q6K,
        ] {
            let inputs = 96usize.next_multiple_of(format.block());
            let length = outputs * format.row_bytes(inputs).unwrap();
            let stored: Vec<u8> = (0..length).map(|at| (at * 37 % 120) as u8).collect();
            let packed = Weights::pack(format, Pairing::Crossed, &stored, outputs, inputs).unwrap();
            let bytes = Arc::new(packed.bytes.to_vec());
            let adopt = |length| {
                let kept = PackedBytes::new(bytes.clone(), 0..length).unwrap();
                Weights::adopt(format, Pairing::Crossed, kept, outputs, inputs)
            };
            assert!(adopt(bytes.len() - 1).is_err());
            let adopted = adopt(bytes.len()).unwrap();
            assert_eq!(*adopted.bytes, *packed.bytes);
            for output in 0..outputs {
                let rows = [&packed, &adopted].map(|weights| {
                    let mut row = vec![0.0; inputs];
                    weights.dequantise_row(output, &mut row);
                    row.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                });
                assert_eq!(rows[0], rows[1], "{format:?} row {output}");
            }
        }
        let kept = PackedBytes::new(Arc::new(vec![0; 64]), 0..64).unwrap();
        for (format, outputs, inputs) in [
            (WeightFormat::F32, usize::MAX, 64),
            (WeightFormat::Q8_0, 1, 33),
            (WeightFormat::Q4K, 1, 32),
            (WeightFormat::Q5K, 1, 32),
            (WeightFormat::Q6K, 1, 32),
        ] {
            let adopted = Weights::adopt(format, Pairing::Neighbours, kept.clone(), outputs, inputs);
            assert!(adopted.is_err(), "{format:?} {outputs} × {inputs}");
        }
    }

    #[test]
    fn weights_of_five_bits_are_packed_as_the_same_ones_in_q8_0() {
        let (outputs, inputs) = (18, 96);
        let length = outputs * WeightFormat::Q5_0.row_bytes(inputs).unwrap();
        let stored: Vec<u8> = (0..length).map(|at| (at * 37 % 251) as u8).collect();
        let blocks = stored.as_chunks().0.iter();
        let in_bytes: Vec<u8> = blocks.flat_map(five_bits::in_bytes).collect();
        let pack = |format, bytes: &[u8]| {
            Weights::pack(format, Pairing::Neighbours, bytes, outputs, inputs).unwrap()
        };
        let packed = pack(WeightFormat::Q5_0, &stored);
        assert_eq!(*packed.bytes, *pack(WeightFormat::Q8_0, &in_bytes).bytes);
        assert_eq!(packed.format, WeightFormat::Q8_0);
    }

    #[test]
    fn weights_of_bf16_are_where_their_pairing_says() {
        let (outputs, inputs, whole) = (17, 36, 64);
        // Each weight tells its output and its input.
        let weight = |output, input| 0x4000 + (output * inputs + input) as u16;
        let stored: Vec<u8> = (0..outputs)
            .flat_map(|output| (0..inputs).map(move |input| weight(output, input)))
            .flat_map(u16::to_le_bytes)
            .collect();
        for pairing in [Pairing::Neighbours, Pairing::Crossed] {
            let packed = Weights::pack(WeightFormat::Bf16, pairing, &stored, outputs, inputs).unwrap();
            assert_eq!(packed.bytes.len(), 2 * GROUP * whole * 2);
            let groups = packed.bytes.as_chunks::<4>().0.chunks(GROUP * whole / 2);
            for (output, input) in (0..2 * GROUP).flat_map(|o| (0..whole).map(move |i| (o, i))) {
                let group = groups.clone().nth(output / GROUP).unwrap();
                let (word, shift) = pairing.place(input);
                let word = u32::from_le_bytes(group[word * GROUP + output % GROUP]);
                let expected = match output < outputs && input < inputs {
                    true => weight(output, input),
                    false => 0,
                };
                assert_eq!((word >> shift) as u16, expected, "{pairing:?} {output}, {input}");
            }
        }
    }
}
