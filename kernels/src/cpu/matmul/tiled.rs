//! Products of many rows, on a unit that multiplies a tile of 16 of them at a time. The same numbers in the same order as in
//! [`quantised`]: what is exact is the integer product, wherever it is made.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::InputPrecision;
use crate::cpu::activations::{TILE, Tile};
use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::quantised::{self, BlockDot, Group, Next, Task};
use crate::cpu::prefetch::Pass;
use crate::cpu::scales::Scales;
use crate::scalar::{BLOCK, FINE_STEPS};

/// A block of 16 rows of weights, as tile units want it: `[k / 4][row][k mod 4]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Weights(pub [i8; BLOCK * 16]);

/// The integer products of 16 rows of activations with 16 rows of weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Dots(pub [[i32; 16]; TILE]);

/// Groups that are multiplied together: each tile of rows is then loaded half as often.
pub const GROUPS: usize = 2;

/// What multiplies.
pub trait TileUnit {
    /// 16 of them.
    type Lanes: Lanes;

    /// # Safety
    /// The CPU must have the unit, the kernel have granted it, and this thread not hold it already.
    unsafe fn take(depth: Depth) -> Self;

    /// Begins the products of 16 rows of activations, `row_bytes` apart, with 16 of weights of each group.
    ///
    /// # Safety
    /// Both are there, as deep as the unit was taken for.
    unsafe fn begin(&mut self, q: *const i8, row_bytes: usize, weights: [*const Weights; GROUPS]);

    /// Stores what was begun last, and begins the next: storing waits for multiplying, so it is put off.
    ///
    /// # Safety
    /// As [`TileUnit::begin`], which was called before, and there is room.
    unsafe fn go_on(
        &mut self,
        q: *const i8,
        row_bytes: usize,
        weights: [*const Weights; GROUPS],
        last: [*mut Dots; GROUPS],
    );

    /// Stores what was begun last.
    ///
    /// # Safety
    /// Something was, and there is room.
    unsafe fn end(&mut self, last: [*mut Dots; GROUPS]);

    /// As floats, which they all fit.
    ///
    /// # Safety
    /// The CPU must have the instructions of the lanes.
    unsafe fn load(dots: *const [i32; 16]) -> Self::Lanes;

    /// Those of two terms, added in steps of the fine one.
    ///
    /// # Safety
    /// As [`TileUnit::load`].
    unsafe fn load_terms(coarse: *const [i32; 16], fine: *const [i32; 16]) -> Self::Lanes;
}

/// How many products make a dot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Of a block: 32.
    One,
    /// Of both terms of a block, each with weights of its own: 64.
    Two,
}

impl Depth {
    pub const fn blocks(self) -> usize {
        match self {
            Depth::One => 1,
            Depth::Two => 2,
        }
    }
}

/// How blocks of a weight format become what the unit multiplies.
pub trait TileFormat {
    /// Of a packed block of 16 rows.
    const BYTES: usize;
    /// How inputs in two terms meet them.
    const TWO_TERMS: TwoTerms;

    /// `count` blocks from `packed` on, as the unit wants them: where they lie, or in `room`. For [`TwoTerms::InOneProduct`]
    /// each is there [`FINE_STEPS`] times first.
    ///
    /// # Safety
    /// So many packed blocks are there, and room for as many, twice if need be.
    unsafe fn spread<const TERMS: usize>(
        packed: *const u8,
        count: usize,
        room: *mut Weights,
    ) -> *const Weights;
}

/// How weights meet inputs in two terms.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TwoTerms {
    /// Weights that are so small that [`FINE_STEPS`] times as much fits a byte.
    InOneProduct,
    Apart,
}

/// Blocks of Q8_0 lie as the unit wants them.
pub struct Bytes;

impl TileFormat for Bytes {
    const BYTES: usize = size_of::<Weights>();
    const TWO_TERMS: TwoTerms = TwoTerms::Apart;

    #[inline(always)]
    unsafe fn spread<const TERMS: usize>(packed: *const u8, _: usize, _: *mut Weights) -> *const Weights {
        packed.cast()
    }
}

/// Blocks of nibbles, of which `ZERO` (0 or 8) stands for 0.
pub struct Nibbles<const ZERO: i8>;

impl<const ZERO: i8> TileFormat for Nibbles<ZERO> {
    const BYTES: usize = size_of::<Weights>() / 2;
    const TWO_TERMS: TwoTerms = TwoTerms::InOneProduct;

    #[inline(always)]
    unsafe fn spread<const TERMS: usize>(
        packed: *const u8,
        count: usize,
        room: *mut Weights,
    ) -> *const Weights {
        const LINE: usize = 64;
        for line in 0..count * Self::BYTES / LINE {
            let (block, piece) = (line * LINE / Self::BYTES, line % (Self::BYTES / LINE));
            // SAFETY: the caller promises blocks and room; low halves are the first 16 weights of each row, in the first four
            // lines of a block of bytes.
            unsafe {
                let from = &*packed.add(line * LINE).cast::<[u8; LINE]>();
                let (low, high) = (
                    from.map(|byte| (byte & 15) as i8 - ZERO),
                    from.map(|byte| (byte >> 4) as i8 - ZERO),
                );
                let last = room
                    .add(block * TERMS + TERMS - 1)
                    .cast::<[i8; LINE]>()
                    .add(piece);
                last.write(low);
                last.add(Self::BYTES / LINE).write(high);
                if TERMS == 2 {
                    let first = room.add(block * TERMS).cast::<[i8; LINE]>().add(piece);
                    first.write(low.map(|weight| weight * FINE_STEPS as i8));
                    first
                        .add(Self::BYTES / LINE)
                        .write(high.map(|weight| weight * FINE_STEPS as i8));
                }
            }
        }
        room
    }
}

impl TwoTerms {
    /// As deep as products of `terms` are.
    const fn depth(self, terms: usize) -> Depth {
        match (self, terms) {
            (TwoTerms::InOneProduct, 2) => Depth::Two,
            _ => Depth::One,
        }
    }

    /// Products that a block of `terms` takes.
    const fn products(self, terms: usize) -> usize {
        terms / self.depth(terms).blocks()
    }
}

/// Of a tile with a group, stored one after the other before all are scaled: while tiles are multiplied, half of what multiplies
/// vectors stands still. More of them, and the weights beside them, would not stay in the nearest cache.
const CHUNK_PRODUCTS: usize = 8;

/// Blocks of a group that are spread at a time, for all tiles of a slab.
const CHUNK_BLOCKS_MAX: usize = CHUNK_PRODUCTS;

/// Tiles whose sums are kept from one chunk of blocks to the next.
const SLAB_TILES: usize = 16;

type SpreadRoom<const TERMS: usize> = [MaybeUninit<[Weights; TERMS]>; CHUNK_BLOCKS_MAX];

/// The products of a chunk, block by block, of both terms of each if they are multiplied apart.
type ChunkDots = [MaybeUninit<Dots>; CHUNK_PRODUCTS];

/// The products of `rows` (whole tiles, or up to the last row) with `groups` of output rows. Tiles of fewer than 16 rows
/// are left to `D`.
///
/// # Safety
/// As [`quantised::multiply`], and the CPU must have the unit `U`, which this thread does not hold.
#[inline(always)]
pub unsafe fn multiply<U, F, D, S>(task: &Task<'_>, groups: Range<usize>, rows: Range<usize>)
where
    U: TileUnit,
    F: TileFormat,
    D: BlockDot<Lanes = U::Lanes>,
    S: Scales,
{
    let full = rows.start..rows.start + rows.len() / TILE * TILE;
    // SAFETY: passed on to the caller.
    unsafe {
        if !full.is_empty() {
            let (groups, full) = (groups.clone(), full.clone());
            match task.x.precision() {
                InputPrecision::OneTerm => multiply_terms::<U, F, S, 1>(task, groups, full),
                InputPrecision::TwoTerms => multiply_terms::<U, F, S, 2>(task, groups, full),
            }
        }
        if full.end < rows.end {
            quantised::multiply::<D, S>(task, groups, full.end..rows.end);
        }
    }
}

#[inline(always)]
unsafe fn multiply_terms<U: TileUnit, F: TileFormat, S: Scales, const TERMS: usize>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    // SAFETY: passed on to the caller.
    let mut unit = unsafe { U::take(F::TWO_TERMS.depth(TERMS)) };
    for first in groups.clone().step_by(GROUPS) {
        // A group without a neighbour is its own.
        let pair = [first, (first + 1).min(groups.end - 1)]
            .map(|group| Group::<S>::new(task.weights, group, F::BYTES));
        for first in rows.clone().step_by(SLAB_TILES * TILE) {
            let slab = first..rows.end.min(first + SLAB_TILES * TILE);
            // SAFETY: passed on to the caller.
            unsafe { multiply_slab::<U, F, S, TERMS>(&mut unit, &pair, task, slab) };
        }
    }
}

/// # Safety
/// As [`multiply`]; the unit is as deep as the format wants it; `rows` are whole tiles, and no more than of a slab.
#[inline(always)]
unsafe fn multiply_slab<U: TileUnit, F: TileFormat, S: Scales, const TERMS: usize>(
    unit: &mut U,
    groups: &[Group<S>; GROUPS],
    task: &Task<'_>,
    rows: Range<usize>,
) {
    let mut room: [SpreadRoom<TERMS>; GROUPS] =
        [const { [const { MaybeUninit::uninit() }; CHUNK_BLOCKS_MAX] }; GROUPS];
    let mut dots: [ChunkDots; GROUPS] = [const { [const { MaybeUninit::uninit() }; CHUNK_PRODUCTS] }; GROUPS];
    let all = groups[0].blocks;
    let chunk = CHUNK_PRODUCTS / F::TWO_TERMS.products(TERMS);
    let next = Next::new(task.weights, GROUPS, F::BYTES, Pass::ONLY);
    // SAFETY: the caller promises the unit; blocks and rows are within the matrix.
    unsafe {
        // Of few tiles, clearing the rest would take as long as some blocks.
        let mut sums = [const { MaybeUninit::<[[U::Lanes; TILE]; GROUPS]>::uninit() }; SLAB_TILES];
        let sums: &mut [[[U::Lanes; TILE]; GROUPS]] = {
            let used = &mut sums[..rows.len() / TILE];
            for sums in used.iter_mut() {
                sums.write([[U::Lanes::splat(0.0); TILE]; GROUPS]);
            }
            used.assume_init_mut()
        };
        // No blocks have sums too.
        for first in (0..all.max(1)).step_by(chunk) {
            let blocks = first..all.min(first + chunk);
            let weights = spread::<F, S, TERMS>(groups, blocks.clone(), &next, &mut room);
            let is_last = blocks.end == all;
            for (sums, row) in sums.iter_mut().zip(rows.clone().step_by(TILE)) {
                if is_last {
                    // Rows lie pages apart: each place is a page of its own, which stores would wait for one by one.
                    for r in row..row + TILE {
                        task.out.prefetch(r, groups[0].first_output);
                    }
                }
                let tile = task.x.tile(row..row + TILE);
                assert_eq!(tile.d.len(), all * TILE, "activations of these inputs");
                let q = &tile.q[first * TILE * TERMS * BLOCK..];
                multiply_tile::<U, F, TERMS>(unit, q, blocks.len(), weights, &mut dots);
                for ((sums, group), dots) in sums.iter_mut().zip(groups).zip(&dots) {
                    scale::<U, F, S, TERMS>(group, &tile, blocks.clone(), dots, sums);
                }
                if is_last {
                    store(task, groups, sums, row);
                }
            }
        }
    }
}

/// A chunk of each group's weights as the unit wants them; the next one is asked for.
///
/// # Safety
/// The groups have the blocks, which are at most a chunk, in the format.
#[inline(always)]
unsafe fn spread<F: TileFormat, S: Scales, const TERMS: usize>(
    groups: &[Group<S>; GROUPS],
    blocks: Range<usize>,
    next: &Next,
    room: &mut [SpreadRoom<TERMS>; GROUPS],
) -> [*const Weights; GROUPS] {
    let mut weights = [std::ptr::null(); GROUPS];
    for ((weights, group), room) in weights.iter_mut().zip(groups).zip(room) {
        for block in blocks.clone() {
            group.prefetch(block, F::BYTES, blocks.len() * F::BYTES);
            group.ask_for(next, block, F::BYTES);
        }
        // SAFETY: passed on to the caller.
        *weights = unsafe {
            let packed = group.quants(blocks.start, F::BYTES);
            F::spread::<TERMS>(packed, blocks.len(), room.as_mut_ptr().cast())
        };
    }
    weights
}

/// # Safety
/// No other thread may write these outputs.
#[inline(always)]
unsafe fn store<L: Lanes, S: Scales>(
    task: &Task<'_>,
    groups: &[Group<S>; GROUPS],
    sums: &[[L; TILE]; GROUPS],
    row: usize,
) {
    for (sums, group) in sums.iter().zip(groups) {
        for (r, sum) in sums.iter().enumerate() {
            // SAFETY: passed on to the caller.
            unsafe {
                task.out
                    .store(*sum, row + r, group.first_output, task.weights.outputs);
            }
        }
    }
}

/// The products of `blocks` blocks from `q` on with as many of each group.
///
/// # Safety
/// As [`multiply_slab`]; `q` and `weights` have the blocks, which are at most a chunk.
#[inline(always)]
unsafe fn multiply_tile<U: TileUnit, F: TileFormat, const TERMS: usize>(
    unit: &mut U,
    q: &[i8],
    blocks: usize,
    weights: [*const Weights; GROUPS],
    dots: &mut [ChunkDots; GROUPS],
) {
    let depth = F::TWO_TERMS.depth(TERMS).blocks();
    let products = F::TWO_TERMS.products(TERMS);
    let row_bytes = TERMS * BLOCK;
    let mut room = |turn: usize| dots.each_mut().map(|dots| dots[turn].as_mut_ptr());
    // SAFETY: passed on to the caller.
    unsafe {
        for turn in 0..blocks * products {
            let (block, term) = (turn / products, turn % products);
            let q = q.as_ptr().add(block * TILE * row_bytes + term * BLOCK);
            let weights = weights.map(|weights| weights.add(block * depth));
            match turn.checked_sub(1) {
                None => unit.begin(q, row_bytes, weights),
                Some(last) => unit.go_on(q, row_bytes, weights, room(last)),
            }
        }
        if let Some(last) = (blocks * products).checked_sub(1) {
            unit.end(room(last));
        }
    }
}

/// Adds the products of a chunk to the sums of each row, block by block.
///
/// # Safety
/// The CPU must have the instructions of `U`; the tile has the blocks, and `dots` their products.
#[inline(always)]
unsafe fn scale<U: TileUnit, F: TileFormat, S: Scales, const TERMS: usize>(
    group: &Group<S>,
    tile: &Tile<'_>,
    blocks: Range<usize>,
    dots: &ChunkDots,
    sums: &mut [U::Lanes; TILE],
) {
    let products = F::TWO_TERMS.products(TERMS);
    let mut acc = *sums;
    for (block, dots) in blocks.zip(dots.chunks_exact(products)) {
        let rows = block * TILE..(block + 1) * TILE;
        let (d, offset) = (&tile.d[rows.clone()], &tile.offset[rows]);
        // SAFETY: passed on to the caller.
        unsafe {
            let (scale, minimum) = group.scales::<U::Lanes>(block, 0);
            let of_row = |term: usize, row: usize| dots[term].as_ptr().cast::<[i32; 16]>().add(row);
            for (r, acc) in acc.iter_mut().enumerate() {
                let dot = match (TERMS, F::TWO_TERMS) {
                    (2, TwoTerms::Apart) => U::load_terms(of_row(0, r), of_row(1, r)),
                    _ => U::load(of_row(0, r)),
                };
                *acc = dot.fma(scale.mul(U::Lanes::splat(d[r])), *acc);
                if S::HAS_MINIMUM {
                    *acc = minimum.fma(U::Lanes::splat(offset[r]), *acc);
                }
            }
        }
    }
    *sums = acc;
}

impl Weights {
    /// A product of 32 activations with one row, for whoever doubts a unit.
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
    use crate::cpu::pairing::Pairing;
    use crate::cpu::scales::{Scale, ScaleMinimum, SuperScaleMinimum};
    use crate::cpu::weights::Weights as Matrix;
    use crate::tensor::Tensor;

    /// A tile unit in plain loops.
    struct Loops {
        depth: Depth,
        begun: [Dots; GROUPS],
    }

    impl TileUnit for Loops {
        type Lanes = scalar::Scalar;

        unsafe fn take(depth: Depth) -> Loops {
            Loops {
                depth,
                begun: [Dots([[0; 16]; TILE]); GROUPS],
            }
        }

        unsafe fn begin(&mut self, q: *const i8, row_bytes: usize, weights: [*const Weights; GROUPS]) {
            let blocks = self.depth.blocks();
            for (dots, weights) in self.begun.iter_mut().zip(weights) {
                // SAFETY: the caller promises rows and weights of this depth.
                let weights = unsafe { std::slice::from_raw_parts(weights, blocks) };
                for (r, dots) in dots.0.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let q = unsafe { std::slice::from_raw_parts(q.add(r * row_bytes), blocks * BLOCK) };
                    *dots = std::array::from_fn(|lane| {
                        let of_block = weights.iter().zip(q.chunks_exact(BLOCK));
                        of_block.map(|(weights, q)| weights.dot(q, lane)).sum()
                    });
                }
            }
        }

        unsafe fn go_on(
            &mut self,
            q: *const i8,
            row_bytes: usize,
            weights: [*const Weights; GROUPS],
            last: [*mut Dots; GROUPS],
        ) {
            // SAFETY: passed on to the caller.
            unsafe {
                self.end(last);
                self.begin(q, row_bytes, weights);
            }
        }

        unsafe fn end(&mut self, last: [*mut Dots; GROUPS]) {
            for (to, dots) in last.into_iter().zip(self.begun) {
                // SAFETY: the caller promises room.
                unsafe { to.write(dots) }
            }
        }

        unsafe fn load(dots: *const [i32; 16]) -> scalar::Scalar {
            // SAFETY: the caller promises 16 numbers.
            let dots = unsafe { *dots }.map(|dot| dot as f32);
            // SAFETY: scalar lanes need nothing; 16 values.
            unsafe { scalar::Scalar::load(dots.as_ptr()) }
        }

        unsafe fn load_terms(coarse: *const [i32; 16], fine: *const [i32; 16]) -> scalar::Scalar {
            // SAFETY: the caller promises 16 numbers of each.
            let (coarse, fine) = unsafe { (*coarse, *fine) };
            let dots: [i32; 16] = std::array::from_fn(|lane| FINE_STEPS * coarse[lane] + fine[lane]);
            // SAFETY: they are 16.
            unsafe { Loops::load(&dots) }
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

    fn assert_bits<F: TileFormat, D: BlockDot<Lanes = scalar::Scalar>, S: Scales>(format: WeightFormat) {
        let single: Kernel = quantised::multiply::<D, S>;
        let tiled: Kernel = multiply::<Loops, F, D, S>;
        // Also more blocks than are spread at a time.
        for (outputs, blocks) in [(1, 0), (1, 1), (16, 2), (37, 5), (20, 35)] {
            let inputs = (blocks * BLOCK).next_multiple_of(format.block());
            let bytes: Vec<u8> = (0..format.row_bytes(inputs).unwrap() * outputs)
                // Scales and minima stay finite: no byte is one of a great exponent.
                .map(|i| ((i * 89 + i / 7) % 256) as u8 & 0xbf)
                .collect();
            let matrix = Matrix::pack(format, Pairing::Neighbours, &bytes, outputs, inputs).unwrap();
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
        assert_bits::<Bytes, scalar::Q8, Scale>(WeightFormat::Q8_0);
        assert_bits::<Nibbles<8>, scalar::Q4<8>, Scale>(WeightFormat::Q4_0);
        assert_bits::<Nibbles<0>, scalar::Q4<0>, ScaleMinimum>(WeightFormat::Q4_1);
        assert_bits::<Nibbles<0>, scalar::Q4<0>, SuperScaleMinimum>(WeightFormat::Q4K);
    }
}
