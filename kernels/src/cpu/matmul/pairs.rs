//! Products with bf16 weights, in the order in which tile units add them: in blocks of 32 inputs, of which the even and the odd
//! ones have a sum each, so that every level gives the same bits (decision 0015).

use std::marker::PhantomData;
use std::ops::Range;

use crate::cpu::lanes::{Lanes, PairLanes};
use crate::cpu::matmul::Out;
use crate::cpu::pairing::Pairing;
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

/// What multiplies the inputs of a block, and how it wants them.
pub trait Multiply {
    type Lanes: Lanes;

    /// Of the words of weights.
    const PAIRING: Pairing;

    /// Of a block of a row's inputs.
    const ROW_WORDS: usize;

    /// Whether [`multiply_block`](Self::multiply_block) starts fetching what lies [nearer ahead](prefetch::nearer) itself.
    const FETCHES: bool;

    /// # Safety
    /// The CPU must have the instructions; a block of weights and of inputs can be read.
    unsafe fn multiply_block<const VECTORS: usize, const ROWS: usize>(
        weights: [*const u32; VECTORS],
        x: [*const u32; ROWS],
        acc: &mut [[Self::Lanes; ROWS]; VECTORS],
    );
}

/// Weights are widened to f32, as inputs were ([`round_row_wide`](crate::cpu::rounded::round_row_wide)).
pub struct Wide<L>(PhantomData<L>);

/// Two inputs of one parity at a time, of weights and of rows ([`round_row_crossed`](crate::cpu::rounded::round_row_crossed)).
pub struct Crossed<L>(PhantomData<L>);

/// The products of `rows` with `groups` of output rows: in register tiles of 2 vectors of outputs and `ROWS` rows, and for
/// the rest of the rows 4 vectors and 1 row.
///
/// # Safety
/// The CPU must have the instructions of `M`, the matrix be of bf16, its inputs rounded as `M` wants them, and no other thread may
/// write these outputs.
#[inline(always)]
pub unsafe fn multiply<M: Multiply, const ROWS: usize>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    assert_eq!(task.weights.pairing, M::PAIRING, "the words of weights");
    let per_group = GROUP / M::Lanes::COUNT;
    let vectors = groups.start * per_group..groups.end * per_group;
    let whole = rows.start + rows.len() / ROWS * ROWS;
    // SAFETY: passed on to the caller.
    unsafe {
        multiply_rows::<M, 2, ROWS>(task, vectors.clone(), rows.start..whole);
        multiply_rows::<M, 4, 1>(task, vectors, whole..rows.end);
    }
}

/// The same in register tiles of a vector and 8 rows, for instructions that read inputs themselves, and so need no registers for them;
/// the rest as [`multiply`].
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
pub unsafe fn multiply_eights<M: Multiply>(task: &Task<'_>, groups: Range<usize>, rows: Range<usize>) {
    const { assert!(M::Lanes::COUNT == GROUP) };
    assert_eq!(task.weights.pairing, M::PAIRING, "the words of weights");
    const ROWS: usize = 8;
    let whole = rows.start + rows.len() / ROWS * ROWS;
    // SAFETY: passed on to the caller.
    unsafe {
        multiply_rows::<M, 1, ROWS>(task, groups.clone(), rows.start..whole);
        if whole < rows.end {
            multiply::<M, 4>(task, groups, whole..rows.end);
        }
    }
}

/// `rows` are a multiple of `ROWS`. The weights of a tile's vectors stay near while all rows pass by.
#[inline(always)]
unsafe fn multiply_rows<M: Multiply, const VECTORS: usize, const ROWS: usize>(
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
            unsafe { multiply_tile::<M, VECTORS, ROWS>(task, vector, row, pass(row)) };
        }
    }
    for vector in whole..vectors.end {
        for row in rows.clone().step_by(ROWS) {
            // SAFETY: passed on to the caller.
            unsafe { multiply_tile::<M, 1, ROWS>(task, vector, row, pass(row)) };
        }
    }
}

#[inline(always)]
unsafe fn multiply_tile<M: Multiply, const VECTORS: usize, const ROWS: usize>(
    task: &Task<'_>,
    vector: usize,
    row: usize,
    pass: Pass,
) {
    let blocks = task.x.blocks();
    let x = task.x.rows(row, ROWS, M::ROW_WORDS).as_ptr();
    let weights: [*const u32; VECTORS] = std::array::from_fn(|v| column::<M::Lanes>(task, vector + v));
    let next_bytes = VECTORS.div_ceil(GROUP / M::Lanes::COUNT) * task.weights.group_bytes;
    let part = pass.part(BLOCK_BYTES);
    // SAFETY: the caller promises the instructions; blocks are within the rows and columns whose lengths were checked.
    unsafe {
        let mut acc = [[M::Lanes::splat(0.0); ROWS]; VECTORS];
        for block in 0..blocks {
            let weights = weights.map(|weights| weights.add(block * PAIRS * GROUP));
            for weights in weights.iter().step_by(GROUP / M::Lanes::COUNT) {
                let weights = weights.cast::<u8>();
                if pass.index == 0 && !M::FETCHES {
                    prefetch::nearer(weights, BLOCK_BYTES);
                }
                match pass {
                    Pass::ONLY => prefetch::farther(weights, BLOCK_BYTES),
                    _ => prefetch::far(weights.wrapping_add(next_bytes + part.start), part.len()),
                }
            }
            let x = std::array::from_fn(|r| x.add((r * blocks + block) * M::ROW_WORDS));
            M::multiply_block::<VECTORS, ROWS>(weights, x, &mut acc);
        }
        for (v, acc) in acc.iter().enumerate() {
            for (r, acc) in acc.iter().enumerate() {
                task.out.store(
                    *acc,
                    row + r,
                    (vector + v) * M::Lanes::COUNT,
                    task.weights.outputs,
                );
            }
        }
    }
}

impl<L: Lanes> Multiply for Wide<L> {
    type Lanes = L;

    const PAIRING: Pairing = Pairing::Neighbours;
    const ROW_WORDS: usize = BLOCK;
    const FETCHES: bool = false;

    #[inline(always)]
    unsafe fn multiply_block<const VECTORS: usize, const ROWS: usize>(
        weights: [*const u32; VECTORS],
        x: [*const u32; ROWS],
        acc: &mut [[L; ROWS]; VECTORS],
    ) {
        // SAFETY: passed on to the caller; inputs are numbers.
        unsafe {
            let mut even = [[L::splat(0.0); ROWS]; VECTORS];
            let mut odd = even;
            for pair in 0..PAIRS {
                for v in 0..VECTORS {
                    let at = weights[v].add(pair * GROUP);
                    let (low, high) = (L::load_low_bf16(at), L::load_high_bf16(at));
                    for r in 0..ROWS {
                        let x = x[r].add(2 * pair).cast::<f32>();
                        even[v][r] = low.fma(L::splat(*x), even[v][r]);
                        odd[v][r] = high.fma(L::splat(*x.add(1)), odd[v][r]);
                    }
                }
            }
            add_halves(&even, &odd, acc);
        }
    }
}

impl<L: PairLanes> Multiply for Crossed<L> {
    type Lanes = L;

    const PAIRING: Pairing = Pairing::Crossed;
    const ROW_WORDS: usize = PAIRS;
    const FETCHES: bool = true;

    #[inline(always)]
    unsafe fn multiply_block<const VECTORS: usize, const ROWS: usize>(
        weights: [*const u32; VECTORS],
        x: [*const u32; ROWS],
        acc: &mut [[L; ROWS]; VECTORS],
    ) {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut even = [[L::splat(0.0); ROWS]; VECTORS];
            let mut odd = even;
            for pair in (0..PAIRS).step_by(2) {
                for v in 0..VECTORS {
                    let at = weights[v].add(pair * GROUP);
                    // A few lines at a time, also by later passes: long inputs leave the first cache between two of them.
                    prefetch::nearer(at.cast(), 2 * prefetch::LINE);
                    let words = [L::load_words(at), L::load_words(at.add(GROUP))];
                    for r in 0..ROWS {
                        let (sums, x) = ([even[v][r], odd[v][r]], x[r].add(pair));
                        [even[v][r], odd[v][r]] = match ROWS {
                            // Several vectors share what is loaded of the row.
                            1 => [
                                sums[0].add_products(words[0], L::splat_word(*x)),
                                sums[1].add_products(words[1], L::splat_word(*x.add(1))),
                            ],
                            _ => L::add_two(sums, words, x),
                        };
                    }
                }
            }
            add_halves(&even, &odd, acc);
        }
    }
}

/// Sums of even and of odd inputs become one.
#[inline(always)]
fn add_halves<L: Lanes, const VECTORS: usize, const ROWS: usize>(
    even: &[[L; ROWS]; VECTORS],
    odd: &[[L; ROWS]; VECTORS],
    acc: &mut [[L; ROWS]; VECTORS],
) {
    for v in 0..VECTORS {
        for r in 0..ROWS {
            acc[v][r] = acc[v][r].add(even[v][r].add(odd[v][r]));
        }
    }
}

/// Where the weights of a vector's outputs begin.
#[inline(always)]
fn column<L: Lanes>(task: &Task<'_>, vector: usize) -> *const u32 {
    let (group, lane) = (vector * L::COUNT / GROUP, vector * L::COUNT % GROUP);
    task.group(group).wrapping_add(lane)
}
