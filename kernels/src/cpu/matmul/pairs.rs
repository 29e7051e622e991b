//! Products with bf16 weights, in the order in which tile units add them: in blocks of 32 inputs, of which the even and the odd
//! ones have a sum each, so that every level gives the same bits (decision 0015).

use std::ops::Range;

use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::Out;
use crate::cpu::prefetch::{self, Pass};
use crate::cpu::rounded::{PAIRS, Rounded};
use crate::cpu::weights::{GROUP, Weights};
use crate::scalar::BLOCK;

/// One matrix, and where its products go.
pub struct Task<'a> {
    pub weights: &'a Weights,
    pub x: &'a Rounded,
    pub out: Out<'a>,
}

/// Of a block of a group's weights.
pub const BLOCK_BYTES: usize = GROUP * BLOCK * 2;

impl Task<'_> {
    /// Where the weights of a group begin.
    #[inline(always)]
    pub fn group(&self, group: usize) -> *const u32 {
        assert_eq!(
            self.x.blocks(),
            self.weights.inputs.div_ceil(BLOCK),
            "rows of the matrix's inputs"
        );
        self.weights.bytes[group * self.weights.group_bytes..][..self.x.blocks() * BLOCK_BYTES]
            .as_ptr()
            .cast()
    }
}

/// The products of `rows` with `groups` of output rows: in register tiles of 2 vectors of outputs and `ROWS` rows, and for
/// the rest of the rows 4 vectors and 1 row.
///
/// # Safety
/// The CPU must have the instructions of `L`, the matrix be of bf16, its inputs rounded to f32, and no other thread may write these
/// outputs.
#[inline(always)]
pub unsafe fn multiply<L: Lanes, const ROWS: usize>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    let per_group = GROUP / L::COUNT;
    let vectors = groups.start * per_group..groups.end * per_group;
    let whole = rows.start + rows.len() / ROWS * ROWS;
    // SAFETY: passed on to the caller.
    unsafe {
        multiply_rows::<L, 2, ROWS>(task, vectors.clone(), rows.start..whole);
        multiply_rows::<L, 4, 1>(task, vectors, whole..rows.end);
    }
}

/// `rows` are a multiple of `ROWS`. The weights of a tile's vectors stay near while all rows pass by.
#[inline(always)]
unsafe fn multiply_rows<L: Lanes, const VECTORS: usize, const ROWS: usize>(
    task: &Task<'_>,
    vectors: Range<usize>,
    rows: Range<usize>,
) {
    let whole = vectors.start + vectors.len() / VECTORS * VECTORS;
    let pass = |row: usize| Pass {
        index: (row - rows.start) / ROWS,
        count: rows.len() / ROWS,
    };
    for vector in (vectors.start..whole).step_by(VECTORS) {
        for row in rows.clone().step_by(ROWS) {
            // SAFETY: passed on to the caller.
            unsafe { multiply_tile::<L, VECTORS, ROWS>(task, vector, row, pass(row)) };
        }
    }
    for vector in whole..vectors.end {
        for row in rows.clone().step_by(ROWS) {
            // SAFETY: passed on to the caller.
            unsafe { multiply_tile::<L, 1, ROWS>(task, vector, row, pass(row)) };
        }
    }
}

#[inline(always)]
unsafe fn multiply_tile<L: Lanes, const VECTORS: usize, const ROWS: usize>(
    task: &Task<'_>,
    vector: usize,
    row: usize,
    pass: Pass,
) {
    let blocks = task.x.blocks();
    let x = task.x.wide(row, ROWS).as_ptr();
    let weights: [*const u32; VECTORS] = std::array::from_fn(|v| column::<L>(task, vector + v));
    let next_bytes = VECTORS.div_ceil(GROUP / L::COUNT) * task.weights.group_bytes;
    let part = pass.part(BLOCK_BYTES);
    // SAFETY: the caller promises the instructions; blocks are within the rows and columns whose lengths were checked.
    unsafe {
        let mut acc = [[L::splat(0.0); ROWS]; VECTORS];
        for block in 0..blocks {
            let weights = weights.map(|weights| weights.add(block * PAIRS * GROUP));
            for weights in weights.iter().step_by(GROUP / L::COUNT) {
                let weights = weights.cast::<u8>();
                if pass == Pass::ONLY {
                    prefetch::ahead_of(weights, BLOCK_BYTES);
                    continue;
                }
                if pass.index == 0 {
                    prefetch::nearer(weights, BLOCK_BYTES);
                }
                prefetch::far(weights.wrapping_add(next_bytes + part.start), part.len());
            }
            let x = std::array::from_fn(|r| x.add((r * blocks + block) * BLOCK));
            multiply_block::<L, VECTORS, ROWS>(weights, x, &mut acc);
        }
        for (v, acc) in acc.iter().enumerate() {
            for (r, acc) in acc.iter().enumerate() {
                task.out
                    .store(*acc, row + r, (vector + v) * L::COUNT, task.weights.outputs);
            }
        }
    }
}

/// # Safety
/// As [`multiply`]; a block of weights and of inputs can be read.
#[inline(always)]
unsafe fn multiply_block<L: Lanes, const VECTORS: usize, const ROWS: usize>(
    weights: [*const u32; VECTORS],
    x: [*const f32; ROWS],
    acc: &mut [[L; ROWS]; VECTORS],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut even = [[L::splat(0.0); ROWS]; VECTORS];
        let mut odd = even;
        for pair in 0..PAIRS {
            for v in 0..VECTORS {
                let at = weights[v].add(pair * GROUP);
                let (low, high) = (L::load_low_bf16(at), L::load_high_bf16(at));
                for r in 0..ROWS {
                    even[v][r] = low.fma(L::splat(*x[r].add(2 * pair)), even[v][r]);
                    odd[v][r] = high.fma(L::splat(*x[r].add(2 * pair + 1)), odd[v][r]);
                }
            }
        }
        for v in 0..VECTORS {
            for r in 0..ROWS {
                acc[v][r] = acc[v][r].add(even[v][r].add(odd[v][r]));
            }
        }
    }
}

/// Where the weights of a vector's outputs begin.
#[inline(always)]
fn column<L: Lanes>(task: &Task<'_>, vector: usize) -> *const u32 {
    let (group, lane) = (vector * L::COUNT / GROUP, vector * L::COUNT % GROUP);
    task.group(group).wrapping_add(lane)
}
