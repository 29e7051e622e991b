//! Products with quantised weights: exact integer dot products of blocks, accumulated in f32.

use std::ops::Range;

use crate::InputPrecision;
use crate::cpu::activations::{Activations, TILE, Tile};
use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::Out;
use crate::cpu::prefetch;
use crate::cpu::weights::{GROUP, Weights};
use crate::scalar::BLOCK;

/// What an instruction set must know of a weight format: dot products of a block of 16 rows (or of 8 of them at a time).
pub trait BlockDot {
    type Lanes: Lanes;
    /// The weights of a block, unpacked as far as that pays for several rows.
    type Block: Copy;
    /// Of a packed block of 16 rows.
    const BYTES: usize;

    /// # Safety
    /// The CPU must have the instructions, and `from` point to a packed block (or its second 8 rows, 32 bytes later).
    unsafe fn load(from: *const u8) -> Self::Block;

    /// The integer dot products of each lane's weights with `N` times 32 activations in `TERMS` (1 or 2) terms; `origin` points
    /// to −8 times the sum of each 32. They advance together: one after the other their sums would wait for each other.
    ///
    /// # Safety
    /// The CPU must have the instructions, `q` point to `32 · TERMS · N` values and `origin` to `N`, and what `block` was
    /// loaded from be still there.
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        origin: *const i32,
    ) -> [Self::Lanes; N];
}

/// One matrix, and where its products go.
pub struct Task<'a> {
    pub weights: &'a Weights,
    pub x: &'a Activations,
    pub out: Out<'a>,
}

/// The products of `rows` (whole tiles, or up to the last row) with `groups` of output rows.
/// `HALVES` is 1 for formats with a scale, 2 for those with a minimum too.
///
/// # Safety
/// The CPU must have the instructions of `D`, the matrix the format of `D`, and no other thread may write these outputs.
#[inline(always)]
pub unsafe fn multiply<D: BlockDot, const HALVES: usize>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match task.x.precision() {
            InputPrecision::OneTerm => multiply_terms::<D, HALVES, 1>(task, groups, rows),
            InputPrecision::TwoTerms => multiply_terms::<D, HALVES, 2>(task, groups, rows),
        }
    }
}

#[inline(always)]
unsafe fn multiply_terms<D: BlockDot, const HALVES: usize, const TERMS: usize>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    for group in groups {
        let group = Group::<HALVES>::new(task.weights, group, D::BYTES);
        for row in rows.clone().step_by(TILE) {
            let tile = task.x.tile(row..rows.end.min(row + TILE));
            assert_eq!(
                tile.d.len(),
                group.blocks * tile.rows,
                "activations of these inputs"
            );
            // SAFETY: passed on to the caller; the tile has all blocks of the group.
            unsafe {
                match tile.rows {
                    1 => multiply_rows::<D, HALVES, TERMS, 1>(&group, &tile, task, row),
                    _ => multiply_rows::<D, HALVES, TERMS, TILE>(&group, &tile, task, row),
                }
            }
        }
    }
}

/// Rows whose accumulators are addressed from one place.
const ROWS_AT_A_TIME: usize = 4;

/// The products of a tile of up to `ROWS_MAX` rows. One row's accumulators stay in registers; those of more are in memory
/// (in reach of the nearest cache), and unpacking a block is paid once for all rows.
///
/// # Safety
/// As [`multiply`]; the tile has all blocks of the group, in `TERMS`.
#[inline(always)]
unsafe fn multiply_rows<D: BlockDot, const HALVES: usize, const TERMS: usize, const ROWS_MAX: usize>(
    group: &Group<HALVES>,
    tile: &Tile<'_>,
    task: &Task<'_>,
    row: usize,
) {
    let parts = GROUP / D::Lanes::COUNT;
    // SAFETY: the caller promises the instructions; blocks and rows are within the matrix and the tile.
    unsafe {
        let mut acc = [[D::Lanes::splat(0.0); ROWS_MAX]; PARTS_MAX];
        for block in 0..group.blocks {
            prefetch::ahead_of(group.quants(block, D::BYTES), D::BYTES);
            for (part, acc) in acc[..parts].iter_mut().enumerate() {
                let weights = group.block::<D>(block, part * D::Lanes::COUNT);
                let inputs = Inputs::<TERMS>::new(tile, block);
                if ROWS_MAX == 1 {
                    weights.accumulate(inputs, std::array::from_mut(&mut acc[0]));
                    continue;
                }
                let (fours, rest) = acc[..tile.rows].as_chunks_mut::<ROWS_AT_A_TIME>();
                let whole = fours.len() * ROWS_AT_A_TIME;
                for (i, acc) in fours.iter_mut().enumerate() {
                    weights.accumulate(inputs.at_row(i * ROWS_AT_A_TIME), acc);
                }
                for (i, acc) in rest.iter_mut().enumerate() {
                    weights.accumulate(inputs.at_row(whole + i), std::array::from_mut(acc));
                }
            }
        }
        for (part, acc) in acc[..parts].iter().enumerate() {
            let output = group.first_output + part * D::Lanes::COUNT;
            for (r, acc) in acc[..tile.rows].iter().enumerate() {
                task.out.store(*acc, row + r, output, task.weights.outputs);
            }
        }
    }
}

/// Vectors of 8 lanes in a group.
const PARTS_MAX: usize = 2;

/// One block's activations, from some row of a tile on.
#[derive(Clone, Copy)]
struct Inputs<const TERMS: usize> {
    q: *const i8,
    d: *const f32,
    offset: *const f32,
    origin: *const i32,
}

impl<const TERMS: usize> Inputs<TERMS> {
    #[inline(always)]
    fn new(tile: &Tile<'_>, block: usize) -> Self {
        Inputs {
            q: tile.q.as_ptr(),
            d: tile.d.as_ptr(),
            offset: tile.offset.as_ptr(),
            origin: tile.origin.as_ptr(),
        }
        .at_row(block * tile.rows)
    }

    #[inline(always)]
    fn at_row(self, row: usize) -> Self {
        Inputs {
            q: self.q.wrapping_add(row * TERMS * BLOCK),
            d: self.d.wrapping_add(row),
            offset: self.offset.wrapping_add(row),
            origin: self.origin.wrapping_add(row),
        }
    }
}

/// 16 output rows of a matrix.
pub struct Group<const HALVES: usize> {
    pub first_output: usize,
    pub blocks: usize,
    quants: *const u8,
    halves: *const u8,
}

impl<const HALVES: usize> Group<HALVES> {
    #[inline(always)]
    pub fn new(weights: &Weights, group: usize, block_bytes: usize) -> Self {
        let blocks = weights.blocks();
        let bytes = &weights.bytes[group * weights.group_bytes..][..weights.group_bytes];
        let (quants, halves) = bytes.split_at(blocks * block_bytes);
        assert!(
            halves.len() >= blocks * HALVES * GROUP * 2,
            "a group of another format"
        );
        Group {
            first_output: group * GROUP,
            blocks,
            quants: quants.as_ptr(),
            halves: halves.as_ptr(),
        }
    }

    /// A packed block.
    ///
    /// # Safety
    /// `index` must be less than `blocks`, and `block_bytes` those of `new`.
    #[inline(always)]
    pub unsafe fn quants(&self, index: usize, block_bytes: usize) -> *const u8 {
        // SAFETY: the caller's promise; `new` has checked the length.
        unsafe { self.quants.add(index * block_bytes) }
    }

    /// Starts fetching the packed block that lies `ahead` bytes after this one, be it in the next group.
    #[inline(always)]
    pub fn prefetch(&self, index: usize, block_bytes: usize, ahead: usize) {
        let from = self.quants.wrapping_add(index * block_bytes + ahead);
        prefetch::near(from, block_bytes);
    }

    /// The scales, and the minima where there are any, of a block's lanes from `first_lane` on.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`; `index` be less than `blocks`.
    #[inline(always)]
    pub unsafe fn scales<L: Lanes>(&self, index: usize, first_lane: usize) -> (L, L) {
        // SAFETY: the caller's promise; `new` has checked the length.
        unsafe {
            let halves = self.halves.add((index * HALVES * GROUP + first_lane) * 2);
            let scale = L::load_f16(halves.cast());
            match HALVES {
                2 => (scale, L::load_f16(halves.add(GROUP * 2).cast())),
                _ => (scale, scale),
            }
        }
    }

    /// The lanes from `first_lane` on.
    ///
    /// # Safety
    /// The CPU must have the instructions of `D`; `index` be less than `blocks`.
    #[inline(always)]
    unsafe fn block<D: BlockDot>(&self, index: usize, first_lane: usize) -> WeightBlock<D, HALVES> {
        // SAFETY: passed on to the caller.
        unsafe {
            let (scale, minimum) = self.scales(index, first_lane);
            WeightBlock {
                weights: D::load(self.quants(index, D::BYTES).add(first_lane * 4)),
                scale,
                minimum,
            }
        }
    }
}

struct WeightBlock<D: BlockDot, const HALVES: usize> {
    weights: D::Block,
    scale: D::Lanes,
    /// Unused unless `HALVES` is 2.
    minimum: D::Lanes,
}

impl<D: BlockDot, const HALVES: usize> WeightBlock<D, HALVES> {
    /// # Safety
    /// `inputs` has `ROWS` rows.
    #[inline(always)]
    unsafe fn accumulate<const TERMS: usize, const ROWS: usize>(
        &self,
        inputs: Inputs<TERMS>,
        acc: &mut [D::Lanes; ROWS],
    ) {
        const { assert!(ROWS == 1 || ROWS == ROWS_AT_A_TIME) };
        // SAFETY: passed on to the caller.
        unsafe {
            match (ROWS, TERMS) {
                (1, _) => self.accumulate_rows::<TERMS, ROWS, 1>(inputs, 0, acc),
                (_, 1) => self.accumulate_rows::<TERMS, ROWS, 4>(inputs, 0, acc),
                // As many sums as of four rows with one term.
                _ => {
                    self.accumulate_rows::<TERMS, ROWS, 2>(inputs, 0, acc);
                    self.accumulate_rows::<TERMS, ROWS, 2>(inputs, 2, acc);
                }
            }
        }
    }

    /// # Safety
    /// `inputs` has `N` rows from the first on.
    #[inline(always)]
    unsafe fn accumulate_rows<const TERMS: usize, const ROWS: usize, const N: usize>(
        &self,
        inputs: Inputs<TERMS>,
        first: usize,
        acc: &mut [D::Lanes; ROWS],
    ) {
        let inputs = inputs.at_row(first);
        // SAFETY: the caller's promise; a block exists, so the CPU has the instructions.
        unsafe {
            let dots = D::dots::<TERMS, N>(&self.weights, inputs.q, inputs.origin);
            for (i, dot) in dots.into_iter().enumerate() {
                let acc = &mut acc[first + i];
                *acc = dot.fma(self.scale.mul(D::Lanes::splat(*inputs.d.add(i))), *acc);
                if HALVES == 2 {
                    *acc = self.minimum.fma(D::Lanes::splat(*inputs.offset.add(i)), *acc);
                }
            }
        }
    }
}
