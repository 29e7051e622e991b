//! Products with float weights.

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
pub struct Bf16;

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

impl Element for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load_bf16(from.cast()) }
    }
}

/// One matrix, and where its products go.
pub struct Task<'a> {
    pub weights: &'a Weights,
    pub x: &'a Tensor,
    pub out: Out<'a>,
}

/// The products of `rows` with `groups` of output rows, in register tiles of up to 4 vectors of outputs and `ROWS` rows.
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
    let mut vectors = groups.start * per_group..groups.end * per_group;
    // One row alone needs more sums in flight to hide their latency.
    let wide = rows.len() < 4;
    // SAFETY: passed on to the caller.
    unsafe {
        while vectors.len() >= 4 && wide {
            multiply_rows::<L, E, 4, 2>(task, vectors.start, rows.clone());
            vectors.start += 4;
        }
        while vectors.len() >= 2 {
            multiply_rows::<L, E, 2, ROWS>(task, vectors.start, rows.clone());
            vectors.start += 2;
        }
        while !vectors.is_empty() {
            multiply_rows::<L, E, 1, ROWS>(task, vectors.start, rows.clone());
            vectors.start += 1;
        }
    }
}

#[inline(always)]
unsafe fn multiply_rows<L: Lanes, E: Element, const VECTORS: usize, const ROWS: usize>(
    task: &Task<'_>,
    vector: usize,
    mut rows: Range<usize>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        while rows.len() >= ROWS {
            multiply_tile::<L, E, VECTORS, ROWS>(task, vector, rows.start);
            rows.start += ROWS;
        }
        while rows.len() >= 2 {
            multiply_tile::<L, E, VECTORS, 2>(task, vector, rows.start);
            rows.start += 2;
        }
        if !rows.is_empty() {
            multiply_tile::<L, E, VECTORS, 1>(task, vector, rows.start);
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
