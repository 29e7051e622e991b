//! Products with float weights that see their inputs as they are: F32 and F16.

use std::ops::Range;

use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::Out;
use crate::cpu::weights::{GROUP, Weights};
use crate::tensor::Tensor;

/// A float format of weights.
pub trait Element {
    const BYTES: usize;
    /// # Safety
    /// As [`Lanes::load`].
    unsafe fn load<L: Lanes>(from: *const u8) -> L;
}

pub struct F32;
pub struct F16;

impl Element for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load(from.cast()) }
    }
}

impl Element for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load_f16(from.cast()) }
    }
}

/// One matrix, and where its products go.
pub struct Task<'a> {
    pub weights: &'a Weights,
    pub x: &'a Tensor,
    pub out: Out<'a>,
}

/// The products of `rows` with `groups` of output rows: in register tiles of 2 vectors of outputs and `ROWS` rows, and for
/// the rest of the rows 4 vectors and 1 or 2 rows.
///
/// # Safety
/// The CPU must have the instructions of `L`, the matrix the format of `E`, and no other thread may write these outputs.
#[inline(always)]
pub unsafe fn multiply<L: Lanes, E: Element, const ROWS: usize>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    let per_group = GROUP / L::COUNT;
    let vectors = groups.start * per_group..groups.end * per_group;
    let whole = rows.start + rows.len() / ROWS * ROWS;
    let pairs = whole + (rows.end - whole) / 2 * 2;
    // SAFETY: passed on to the caller.
    unsafe {
        multiply_rows::<L, E, 2, ROWS>(task, vectors.clone(), rows.start..whole);
        multiply_rows::<L, E, 4, 2>(task, vectors.clone(), whole..pairs);
        multiply_rows::<L, E, 4, 1>(task, vectors, pairs..rows.end);
    }
}

/// `rows` are a multiple of `ROWS`. The weights of a tile's vectors stay near while all rows pass by.
#[inline(always)]
unsafe fn multiply_rows<L: Lanes, E: Element, const VECTORS: usize, const ROWS: usize>(
    task: &Task<'_>,
    vectors: Range<usize>,
    rows: Range<usize>,
) {
    let whole = vectors.start + vectors.len() / VECTORS * VECTORS;
    for vector in (vectors.start..whole).step_by(VECTORS) {
        for row in rows.clone().step_by(ROWS) {
            // SAFETY: passed on to the caller.
            unsafe { multiply_tile::<L, E, VECTORS, ROWS>(task, vector, row) };
        }
    }
    for vector in whole..vectors.end {
        for row in rows.clone().step_by(ROWS) {
            // SAFETY: passed on to the caller.
            unsafe { multiply_tile::<L, E, 1, ROWS>(task, vector, row) };
        }
    }
}

#[inline(always)]
unsafe fn multiply_tile<L: Lanes, E: Element, const VECTORS: usize, const ROWS: usize>(
    task: &Task<'_>,
    vector: usize,
    row: usize,
) {
    let inputs = task.weights.inputs;
    let x = task.x.values()[row * inputs..][..ROWS * inputs].as_ptr();
    let weights: [*const u8; VECTORS] = std::array::from_fn(|v| column::<L, E>(task.weights, vector + v));
    // SAFETY: the caller promises the instructions; `k` is within the rows and columns whose lengths were checked.
    unsafe {
        let mut acc = [[L::splat(0.0); ROWS]; VECTORS];
        for k in 0..inputs {
            for (acc, weights) in acc.iter_mut().zip(weights) {
                let w: L = E::load(weights.add(k * GROUP * E::BYTES));
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc = w.fma(L::splat(*x.add(r * inputs + k)), *acc);
                }
            }
        }
        for (v, acc) in acc.iter().enumerate() {
            for (r, acc) in acc.iter().enumerate() {
                task.out
                    .store(*acc, row + r, (vector + v) * L::COUNT, task.weights.outputs);
            }
        }
    }
}

/// Where the weights of a vector's outputs begin.
#[inline(always)]
fn column<L: Lanes, E: Element>(weights: &Weights, vector: usize) -> *const u8 {
    let (group, lane) = (vector * L::COUNT / GROUP, vector * L::COUNT % GROUP);
    let group = &weights.bytes[group * weights.group_bytes..][..weights.inputs * GROUP * E::BYTES];
    group.as_ptr().wrapping_add(lane * E::BYTES)
}
