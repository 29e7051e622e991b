//! Products with quantised weights: exact integer dot products of blocks, accumulated in f32.

use std::ops::Range;

use crate::cpu::activations::{Activations, TILE, Tile};
use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::Out;
use crate::cpu::weights::{GROUP, Weights};
use crate::scalar::BLOCK;

/// What an instruction set must know of a weight format: dot products of a block of 16 rows (or of 8 of them at a time).
pub trait BlockDot {
    type Lanes: Lanes;
    /// The weights of a block, unpacked.
    type Block: Copy;
    /// Of a packed block of 16 rows.
    const BYTES: usize;

    /// # Safety
    /// The CPU must have the instructions, and `from` point to a packed block (or its second 8 rows, 32 bytes later).
    unsafe fn load(from: *const u8) -> Self::Block;

    /// The integer dot product of each lane's weights with 32 activations, whose sum is `sum`.
    ///
    /// # Safety
    /// The CPU must have the instructions, `q` point to 32 values, and what `block` was loaded from be still there.
    unsafe fn dot(block: &Self::Block, q: *const i8, sum: i32) -> Self::Lanes;
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
    for group in groups {
        for first_lane in (0..GROUP).step_by(D::Lanes::COUNT) {
            let column = Column::<HALVES>::new::<D>(task.weights, group, first_lane);
            for row in rows.clone().step_by(TILE) {
                let tile = task.x.tile(row..rows.end.min(row + TILE));
                let output = group * GROUP + first_lane;
                // SAFETY: passed on to the caller; `Column` points into the matrix.
                unsafe {
                    match tile.rows {
                        1 => multiply_row::<D, HALVES>(&column, &tile, task, row, output),
                        _ => multiply_tile::<D, HALVES>(&column, &tile, task, row, output),
                    }
                }
            }
        }
    }
}

/// The accumulators stay in memory (in reach of the nearest cache): unpacking a block is paid once for all rows.
#[inline(always)]
unsafe fn multiply_tile<D: BlockDot, const HALVES: usize>(
    column: &Column<HALVES>,
    tile: &Tile<'_>,
    task: &Task<'_>,
    row: usize,
    output: usize,
) {
    // SAFETY: the caller promises the instructions; blocks and rows are within the matrix and the tile.
    unsafe {
        let mut acc = [D::Lanes::splat(0.0); TILE];
        for block in 0..column.blocks {
            let weights = column.block::<D>(block);
            for (r, acc) in acc[..tile.rows].iter_mut().enumerate() {
                *acc = weights.accumulate(tile, block * tile.rows + r, *acc);
            }
        }
        for (r, acc) in acc[..tile.rows].iter().enumerate() {
            task.out.store(*acc, row + r, output, task.weights.outputs);
        }
    }
}

/// As `multiply_tile` for one row, with the accumulator in a register.
#[inline(always)]
unsafe fn multiply_row<D: BlockDot, const HALVES: usize>(
    column: &Column<HALVES>,
    tile: &Tile<'_>,
    task: &Task<'_>,
    row: usize,
    output: usize,
) {
    // SAFETY: the caller promises the instructions; blocks are within the matrix and the tile.
    unsafe {
        let mut acc = D::Lanes::splat(0.0);
        for block in 0..column.blocks {
            acc = column.block::<D>(block).accumulate(tile, block, acc);
        }
        task.out.store(acc, row, output, task.weights.outputs);
    }
}

/// The lanes of a group that are worked on together.
struct Column<const HALVES: usize> {
    blocks: usize,
    quants: *const u8,
    halves: *const u8,
}

impl<const HALVES: usize> Column<HALVES> {
    #[inline(always)]
    fn new<D: BlockDot>(weights: &Weights, group: usize, first_lane: usize) -> Self {
        let blocks = weights.blocks();
        let group = &weights.bytes[group * weights.group_bytes..][..weights.group_bytes];
        let (quants, halves) = group.split_at(blocks * D::BYTES);
        assert!(
            halves.len() >= blocks * HALVES * GROUP * 2,
            "a group of another format"
        );
        Column {
            blocks,
            quants: quants.as_ptr().wrapping_add(first_lane * 4),
            halves: halves.as_ptr().wrapping_add(first_lane * 2),
        }
    }

    /// # Safety
    /// The CPU must have the instructions of `D`; `index` be less than `blocks`.
    #[inline(always)]
    unsafe fn block<D: BlockDot>(&self, index: usize) -> WeightBlock<D, HALVES> {
        // SAFETY: the caller's promise; `new` has checked the lengths.
        unsafe {
            let halves = self.halves.add(index * HALVES * GROUP * 2);
            let scale = D::Lanes::load_f16(halves.cast());
            let minimum = if HALVES == 2 {
                D::Lanes::load_f16(halves.add(GROUP * 2).cast())
            } else {
                scale
            };
            WeightBlock {
                weights: D::load(self.quants.add(index * D::BYTES)),
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
    /// `index` is within the tile.
    #[inline(always)]
    unsafe fn accumulate(&self, tile: &Tile<'_>, index: usize, mut acc: D::Lanes) -> D::Lanes {
        for term in index * tile.terms..(index + 1) * tile.terms {
            // SAFETY: passed on to the caller.
            acc = unsafe { self.accumulate_term(tile, term, acc) };
        }
        acc
    }

    /// # Safety
    /// `index` is within the tile.
    #[inline(always)]
    unsafe fn accumulate_term(&self, tile: &Tile<'_>, index: usize, acc: D::Lanes) -> D::Lanes {
        debug_assert!(index < tile.d.len());
        // SAFETY: the caller's promise; a block exists, so the CPU has the instructions.
        unsafe {
            let dot = D::dot(
                &self.weights,
                tile.q.as_ptr().add(index * BLOCK),
                *tile.sum.get_unchecked(index),
            );
            let d = D::Lanes::splat(*tile.d.get_unchecked(index));
            let acc = dot.fma(self.scale.mul(d), acc);
            if HALVES == 1 {
                return acc;
            }
            self.minimum
                .fma(D::Lanes::splat(*tile.offset.get_unchecked(index)), acc)
        }
    }
}
