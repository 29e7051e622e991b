//! Products of many rows, on a unit that multiplies a tile of 16 terms at a time. The same numbers in the same order as in
//! [`quantised`]: what is exact is the integer product, wherever it is made.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::InputPrecision;
use crate::cpu::activations::{TILE, Tile};
use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::quantised::{self, BlockDot, Group, Task};
use crate::scalar::BLOCK;

/// A block of 16 rows of weights, as tile units want it: `[k / 4][row][k mod 4]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Weights(pub [i8; BLOCK * 16]);

/// The integer products of 16 terms with 16 rows of weights: `[term][row]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Dots(pub [[i32; 16]; TERMS_MAX]);

/// Rows of a tile of activations.
const TERMS_MAX: usize = 16;

/// What multiplies.
pub trait TileUnit {
    /// 16 of them.
    type Lanes: Lanes;

    /// # Safety
    /// The CPU must have the unit, the kernel have granted it, and this thread not hold it already.
    unsafe fn take() -> Self;

    /// `TILES` (1 or 2) times 16 terms.
    ///
    /// # Safety
    /// `q` points to `TILES · 16` terms of 32 activations; weights and dots are there.
    unsafe fn multiply<const TILES: usize>(
        &self,
        weights: *const Weights,
        q: *const i8,
        dots: *mut [Dots; TILES],
    );

    /// As floats, which they all fit.
    ///
    /// # Safety
    /// The CPU must have the instructions of the lanes.
    unsafe fn load(dots: *const [i32; 16]) -> Self::Lanes;
}

/// How blocks of a weight format become what the unit multiplies.
pub trait TileFormat {
    /// Of a packed block of 16 rows.
    const BYTES: usize;

    /// `count` blocks from `packed` on, as the unit wants them: where they lie, or in `room`.
    ///
    /// # Safety
    /// So many packed blocks are there, and room for as many.
    unsafe fn spread(packed: *const u8, count: usize, room: *mut Weights) -> *const Weights;
}

/// Blocks of Q8_0 lie as the unit wants them.
pub struct Bytes;

impl TileFormat for Bytes {
    const BYTES: usize = size_of::<Weights>();

    #[inline(always)]
    unsafe fn spread(packed: *const u8, _: usize, _: *mut Weights) -> *const Weights {
        packed.cast()
    }
}

/// Blocks of nibbles, of which `ZERO` (0 or 8) stands for 0.
pub struct Nibbles<const ZERO: i8>;

impl<const ZERO: i8> TileFormat for Nibbles<ZERO> {
    const BYTES: usize = size_of::<Weights>() / 2;

    #[inline(always)]
    unsafe fn spread(packed: *const u8, count: usize, room: *mut Weights) -> *const Weights {
        const LINE: usize = 64;
        for line in 0..count * Self::BYTES / LINE {
            let (block, piece) = (line * LINE / Self::BYTES, line % (Self::BYTES / LINE));
            // SAFETY: the caller promises blocks and room; low halves are the first 16 weights of each row, in the first four
            // lines of a block of bytes.
            unsafe {
                let from = &*packed.add(line * LINE).cast::<[u8; LINE]>();
                let low = room.add(block).cast::<[i8; LINE]>().add(piece);
                low.write(from.map(|byte| (byte & 15) as i8 - ZERO));
                low.add(Self::BYTES / LINE)
                    .write(from.map(|byte| (byte >> 4) as i8 - ZERO));
            }
        }
        room
    }
}

/// Blocks of a group that are spread at a time, and stay in the nearest cache for all tiles of a slab: a unit that has to wait
/// for what was written just now loses more than it gains.
const CHUNK_BLOCKS: usize = 16;

/// Tiles whose sums are kept from one chunk of blocks to the next.
const SLAB_TILES: usize = 16;

/// The products of `rows` (whole tiles, or up to the last row) with `groups` of output rows. Tiles of fewer than 16 rows
/// are left to `D`. `HALVES` is 1 for formats with a scale, 2 for those with a minimum too.
///
/// # Safety
/// As [`quantised::multiply`], and the CPU must have the unit `U`, which this thread does not hold.
#[inline(always)]
pub unsafe fn multiply<U, F, D, const HALVES: usize>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) where
    U: TileUnit,
    F: TileFormat,
    D: BlockDot<Lanes = U::Lanes>,
{
    let full = rows.start..rows.start + rows.len() / TILE * TILE;
    // SAFETY: passed on to the caller.
    unsafe {
        if !full.is_empty() {
            let unit = U::take();
            let (groups, full) = (groups.clone(), full.clone());
            match task.x.precision() {
                InputPrecision::OneTerm => multiply_terms::<U, F, HALVES, 1>(&unit, task, groups, full),
                InputPrecision::TwoTerms => multiply_terms::<U, F, HALVES, 2>(&unit, task, groups, full),
            }
        }
        if full.end < rows.end {
            quantised::multiply::<D, HALVES>(task, groups, full.end..rows.end);
        }
    }
}

#[inline(always)]
unsafe fn multiply_terms<U: TileUnit, F: TileFormat, const HALVES: usize, const TERMS: usize>(
    unit: &U,
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    for group in groups {
        let group = Group::<HALVES>::new(task.weights, group, F::BYTES);
        for first in rows.clone().step_by(SLAB_TILES * TILE) {
            let slab = first..rows.end.min(first + SLAB_TILES * TILE);
            // SAFETY: passed on to the caller.
            unsafe { multiply_slab::<U, F, HALVES, TERMS>(unit, &group, task, slab) };
        }
    }
}

/// # Safety
/// As [`multiply`]; `rows` are whole tiles, and no more than of a slab.
#[inline(always)]
unsafe fn multiply_slab<U: TileUnit, F: TileFormat, const HALVES: usize, const TERMS: usize>(
    unit: &U,
    group: &Group<HALVES>,
    task: &Task<'_>,
    rows: Range<usize>,
) {
    let mut room = [const { MaybeUninit::<Weights>::uninit() }; CHUNK_BLOCKS];
    // SAFETY: the caller promises the unit; blocks and rows are within the matrix.
    unsafe {
        // Of few tiles, clearing the rest would take as long as some blocks.
        let mut sums = [const { MaybeUninit::<[U::Lanes; TILE]>::uninit() }; SLAB_TILES];
        let sums: &mut [[U::Lanes; TILE]] = {
            let used = &mut sums[..rows.len() / TILE];
            for sums in used.iter_mut() {
                sums.write([U::Lanes::splat(0.0); TILE]);
            }
            used.assume_init_mut()
        };
        for first in (0..group.blocks).step_by(CHUNK_BLOCKS) {
            let blocks = first..group.blocks.min(first + CHUNK_BLOCKS);
            let packed = group.quants(first, F::BYTES);
            let weights = F::spread(packed, blocks.len(), room.as_mut_ptr().cast());
            for (sums, row) in sums.iter_mut().zip(rows.clone().step_by(TILE)) {
                let tile = task.x.tile(row..row + TILE);
                assert_eq!(
                    tile.d.len(),
                    group.blocks * TILE * TERMS,
                    "activations of these inputs"
                );
                multiply_tile::<U, F, HALVES, TERMS>(unit, group, weights, &tile, blocks.clone(), sums);
            }
        }
        for (sums, row) in sums.iter().zip(rows.step_by(TILE)) {
            for (r, sum) in sums.iter().enumerate() {
                task.out
                    .store(*sum, row + r, group.first_output, task.weights.outputs);
            }
        }
    }
}

/// The unit works on the next block while this one's products are scaled.
///
/// # Safety
/// As [`multiply`]; the tile has 16 rows and all blocks of the group, in `TERMS`; `weights` points to those of `blocks`.
#[inline(always)]
unsafe fn multiply_tile<U: TileUnit, F: TileFormat, const HALVES: usize, const TERMS: usize>(
    unit: &U,
    group: &Group<HALVES>,
    weights: *const Weights,
    tile: &Tile<'_>,
    blocks: Range<usize>,
    sums: &mut [U::Lanes; TILE],
) {
    // Written before it is read, block by block: filling it first would take as long as scaling a block.
    let mut dots = [const { MaybeUninit::<[Dots; TERMS]>::uninit() }; 2];
    // SAFETY: the caller promises the unit; blocks and rows are within the matrix and the tile; the products of a block
    // are written one turn before they are scaled.
    unsafe {
        let mut acc = *sums;
        for turn in 0..=blocks.len() {
            if turn < blocks.len() {
                // Of the next chunk.
                group.prefetch(blocks.start + turn, F::BYTES, CHUNK_BLOCKS * F::BYTES);
                let q = tile.q.as_ptr().add((blocks.start + turn) * TILE * TERMS * BLOCK);
                unit.multiply(weights.add(turn), q, dots[turn % 2].as_mut_ptr());
            }
            if let Some(last) = turn.checked_sub(1) {
                let dots = dots[last % 2].as_ptr().cast();
                scale::<U, HALVES, TERMS>(group, tile, blocks.start + last, dots, &mut acc);
            }
        }
        *sums = acc;
    }
}

/// Adds a block's products to the sums of each row, term by term.
///
/// # Safety
/// The CPU must have the instructions of `U`; the tile has the block, and `dots` points to a product of each term.
#[inline(always)]
unsafe fn scale<U: TileUnit, const HALVES: usize, const TERMS: usize>(
    group: &Group<HALVES>,
    tile: &Tile<'_>,
    block: usize,
    dots: *const [i32; 16],
    acc: &mut [U::Lanes; TILE],
) {
    let terms = block * TILE * TERMS..(block + 1) * TILE * TERMS;
    let (d, offset) = (&tile.d[terms.clone()], &tile.offset[terms]);
    // SAFETY: passed on to the caller.
    unsafe {
        let (scale, minimum) = group.scales::<U::Lanes>(block, 0);
        for (r, acc) in acc.iter_mut().enumerate() {
            for term in r * TERMS..(r + 1) * TERMS {
                let dot = U::load(dots.add(term));
                *acc = dot.fma(scale.mul(U::Lanes::splat(d[term])), *acc);
                if HALVES == 2 {
                    *acc = minimum.fma(U::Lanes::splat(offset[term]), *acc);
                }
            }
        }
    }
}

impl Weights {
    /// One term's product with one row, for whoever doubts a unit.
    pub fn dot(&self, q: &[i8], lane: usize) -> i32 {
        let weight = |k: usize| i32::from(self.0[k / 4 * 64 + lane * 4 + k % 4]);
        (0..BLOCK).map(|k| weight(k) * i32::from(q[k])).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightFormat;
    use crate::cpu::activations::{Activations, quantise_row};
    use crate::cpu::isa::scalar;
    use crate::cpu::matmul::Out;
    use crate::cpu::weights::Weights as Matrix;
    use crate::tensor::Tensor;

    /// A tile unit in plain loops.
    struct Loops;

    impl TileUnit for Loops {
        type Lanes = scalar::Scalar;

        unsafe fn take() -> Loops {
            Loops
        }

        unsafe fn multiply<const TILES: usize>(
            &self,
            weights: *const Weights,
            q: *const i8,
            dots: *mut [Dots; TILES],
        ) {
            // SAFETY: the caller promises all three.
            unsafe {
                let q = std::slice::from_raw_parts(q, TILES * TERMS_MAX * BLOCK);
                for (term, q) in q.chunks_exact(BLOCK).enumerate() {
                    let products = std::array::from_fn(|lane| (*weights).dot(q, lane));
                    dots.cast::<[i32; 16]>().add(term).write(products);
                }
            }
        }

        unsafe fn load(dots: *const [i32; 16]) -> scalar::Scalar {
            // SAFETY: the caller promises 16 numbers.
            let dots = unsafe { *dots }.map(|dot| dot as f32);
            // SAFETY: scalar lanes need nothing; 16 values.
            unsafe { scalar::Scalar::load(dots.as_ptr()) }
        }
    }

    type Kernel = unsafe fn(&Task<'_>, Range<usize>, Range<usize>);

    fn product(kernel: Kernel, matrix: &Matrix, precision: InputPrecision, rows: usize) -> Vec<u32> {
        let mut activations = Activations::new().unwrap();
        activations.resize(rows, matrix.inputs, precision).unwrap();
        for row in 0..rows {
            let x: Vec<f32> = (0..matrix.inputs)
                .map(|i| ((row * 31 + i * 7) % 101) as f32 / 13.0 - 3.0)
                .collect();
            // SAFETY: one thread; compiled for every CPU.
            unsafe { quantise_row(&activations.writer(), row, &x) };
        }
        let mut out = Tensor::new(rows, matrix.outputs).unwrap();
        out.set_rows(rows);
        let task = Task {
            weights: matrix,
            x: &activations,
            out: Out::whole(&mut out),
        };
        // SAFETY: one thread; scalar lanes need nothing; the matrix has the kernel's format.
        unsafe { kernel(&task, 0..matrix.groups(), 0..rows) };
        out.values().iter().map(|value| value.to_bits()).collect()
    }

    fn assert_bits<F: TileFormat, D: BlockDot<Lanes = scalar::Scalar>, const HALVES: usize>(
        format: WeightFormat,
    ) {
        let single: Kernel = quantised::multiply::<D, HALVES>;
        let tiled: Kernel = multiply::<Loops, F, D, HALVES>;
        // Also more blocks than are spread at a time.
        for (outputs, inputs) in [(1, 32), (16, 64), (37, 160), (20, 32 * 35)] {
            let bytes: Vec<u8> = (0..format.row_bytes(inputs).unwrap() * outputs)
                // Scales and minima stay finite: no byte is one of a great exponent.
                .map(|i| ((i * 89 + i / 7) % 256) as u8 & 0xbf)
                .collect();
            let matrix = Matrix::pack(format, &bytes, outputs, inputs).unwrap();
            for rows in [1, 15, 16, 17, 48, 50, SLAB_TILES * TILE + 16] {
                for precision in [InputPrecision::OneTerm, InputPrecision::TwoTerms] {
                    assert_eq!(
                        product(tiled, &matrix, precision, rows),
                        product(single, &matrix, precision, rows),
                        "{format:?} {outputs} × {inputs}, {rows} rows, {precision:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn tiles_have_the_bits_of_single_rows() {
        assert_bits::<Bytes, scalar::Q8, 1>(WeightFormat::Q8_0);
        assert_bits::<Nibbles<8>, scalar::Q4<8>, 1>(WeightFormat::Q4_0);
        assert_bits::<Nibbles<0>, scalar::Q4<0>, 2>(WeightFormat::Q4_1);
    }
}
