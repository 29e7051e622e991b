//! Attention of up to [`QUERIES_MAX`] queries by vectors.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::parts::{self, Part, Spare};
use super::products::{Crossed, Products, Values, Wide};
use super::{BLOCKS, Job, Keys, Query, Softmax, TILES_PER_BLOCK, Target, Task, Unit, correct};
use crate::cpu::lanes::{Lanes, PairLanes};
use crate::cpu::pages::{Bf16, Form, TOKENS};
use crate::cpu::pairing::Pairing;
use crate::cpu::shared::Shared;
use crate::ops::HEAD_DIM_MAX;
use crate::reference::STEP;
use crate::scalar::BLOCK;

/// So many sums of 16 lanes stay in registers beside the keys.
pub const QUERIES_MAX: usize = 6;

/// Computes one unit of up to [`QUERIES_MAX`] queries. `TILES` tiles of keys and `VECTORS` vectors of a value are kept in
/// registers at a time; `P` has 16 lanes.
///
/// # Safety
/// The CPU must have the instructions of `P`, the pages be of its form, and no other thread may compute the same queries, or
/// the same parts of them; those that are joined are all there.
#[inline(always)]
pub unsafe fn attend<P: Products, const TILES: usize, const VECTORS: usize>(
    task: &Task<'_>,
    unit: &Unit<'_>,
) {
    assert_eq!(
        task.pages.shape.pairing,
        P::PAIRING,
        "the words of keys and values"
    );
    // SAFETY: passed on to the caller.
    unsafe {
        let (parts, target) = match &unit.job {
            Job::Attend(parts, target) => (parts, *target),
            Job::Join(kept) => return parts::join(task, unit, *kept),
        };
        match unit.queries.len() {
            1 => attend_queries::<P, TILES, VECTORS, 1>(task, unit, parts, target),
            2 => attend_queries::<P, TILES, VECTORS, 2>(task, unit, parts, target),
            3 => attend_queries::<P, TILES, VECTORS, 3>(task, unit, parts, target),
            4 => attend_queries::<P, TILES, VECTORS, 4>(task, unit, parts, target),
            5 => attend_queries::<P, TILES, VECTORS, 5>(task, unit, parts, target),
            6 => attend_queries::<P, TILES, VECTORS, 6>(task, unit, parts, target),
            count => panic!("a unit of {count} queries"),
        }
    }
}

/// The same of keys and values in bf16, as they are paired.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
pub unsafe fn attend_crossed<L: PairLanes, const TILES: usize, const VECTORS: usize>(
    task: &Task<'_>,
    unit: &Unit<'_>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match task.pages.shape.pairing {
            Pairing::Crossed => attend::<Crossed<L>, TILES, VECTORS>(task, unit),
            Pairing::Neighbours => attend::<Wide<L, Bf16>, TILES, VECTORS>(task, unit),
        }
    }
}

#[inline(always)]
unsafe fn attend_queries<P: Products, const TILES: usize, const VECTORS: usize, const QUERIES: usize>(
    task: &Task<'_>,
    unit: &Unit<'_>,
    parts: &Range<usize>,
    target: Target,
) {
    let mut queries: [Query; QUERIES] = std::array::from_fn(|i| Query::new(task, unit, i));
    let mut room = MaybeUninit::<Rounded<QUERIES>>::uninit();
    let rounded = round::<P, QUERIES>(task, &queries, &mut room);
    let mut spare = [[Spare::uninit(); HEAD_DIM_MAX]; QUERIES];
    let mut scratch = Scratch {
        weights: [[0; STEP]; QUERIES],
        scores: [[0.0; STEP]; QUERIES],
    };
    let mut totals = [Softmax::NOTHING; QUERIES];
    for part in Part::each(task, unit, parts) {
        // SAFETY: these queries, or parts of them, are this thread's alone, as the caller promises; so is the rest.
        unsafe {
            let sums = part.place(task, target, &mut queries, spare.as_flattened_mut());
            let softmax =
                walk::<P, TILES, VECTORS, QUERIES>(task, unit, &part, &queries, rounded, &mut scratch, sums);
            part.take(task, target, &queries, sums, &softmax, &mut totals);
        }
    }
    // SAFETY: as above.
    unsafe { parts::finish(task, target, &queries, &totals) };
}

/// Walks the steps of a part from nothing, and adds to each query's place in `all`.
///
/// # Safety
/// The CPU must have the instructions of `P`; the places, each of one query, are this thread's alone.
#[inline(always)]
unsafe fn walk<P: Products, const TILES: usize, const VECTORS: usize, const QUERIES: usize>(
    task: &Task<'_>,
    unit: &Unit<'_>,
    part: &Part,
    queries: &[Query; QUERIES],
    rounded: [*const u32; QUERIES],
    scratch: &mut Scratch<QUERIES>,
    all: Shared<'_, f32>,
) -> [Softmax; QUERIES] {
    // SAFETY: passed on to the caller.
    let mut sums: [&mut [f32]; QUERIES] =
        std::array::from_fn(|i| unsafe { queries[i].sums(all, task.shape.head_dim) });
    let mut softmax = [Softmax::NOTHING; QUERIES];
    let Scratch { weights, scores } = scratch;
    for first in part.positions.clone().step_by(STEP) {
        let keys = Keys::step(task, unit, part, first);
        let (mut seen, mut m, mut corr) = ([0; QUERIES], [0.0; QUERIES], [0.0; QUERIES]);
        for (seen, query) in seen.iter_mut().zip(queries) {
            *seen = query.seen(first);
        }
        // SAFETY: the caller promises the instructions.
        unsafe {
            keys.score::<P, TILES, QUERIES>(rounded, scores);
            // One query's greatest score is long in coming; meanwhile those of the others are looked for.
            for (i, scores) in scores.iter_mut().enumerate() {
                m[i] = softmax[i].greatest_scaled::<P::Lanes>(seen[i], scores, task.shape.scale);
            }
            correct::<P::Lanes, QUERIES>(&mut softmax, &m);
            for (i, scores) in scores.iter_mut().enumerate() {
                softmax[i].weigh::<P::Lanes>(seen[i], scores, m[i]);
                corr[i] = softmax[i].corr;
                keys.round_weights::<P>(scores, &mut weights[i]);
            }
            let step = Step { seen, corr, weights };
            keys.accumulate::<P, VECTORS, QUERIES>(&step, &mut sums);
        }
    }
    softmax
}

/// Of all queries in a step. Each vector lies in one line of the cache: over two, int8 takes a sixth longer.
#[repr(C, align(64))]
struct Scratch<const QUERIES: usize> {
    /// As values meet them.
    weights: [[u32; STEP]; QUERIES],
    scores: [[f32; STEP]; QUERIES],
}

/// What a step adds, and to what.
struct Step<'a, const QUERIES: usize> {
    seen: [usize; QUERIES],
    corr: [f32; QUERIES],
    /// As values meet them.
    weights: &'a [[u32; STEP]; QUERIES],
}

/// Queries as keys meet them.
type Rounded<const QUERIES: usize> = [[u32; HEAD_DIM_MAX]; QUERIES];

#[inline(always)]
fn round<P: Products, const QUERIES: usize>(
    task: &Task<'_>,
    queries: &[Query; QUERIES],
    room: &mut MaybeUninit<Rounded<QUERIES>>,
) -> [*const u32; QUERIES] {
    const { assert!(HEAD_DIM_MAX.is_multiple_of(BLOCK)) };
    let mut rounded = [room.as_mut_ptr().cast::<u32>().cast_const(); QUERIES];
    for (i, (query, rounded)) in queries.iter().zip(&mut rounded).enumerate() {
        let to = room.as_mut_ptr().cast::<u32>().wrapping_add(i * HEAD_DIM_MAX);
        // SAFETY: a head has at most `HEAD_DIM_MAX` dimensions, which are whole blocks, and so much is the query's room.
        unsafe { P::round_query(query.numbers(task), to) };
        *rounded = to.cast_const();
    }
    rounded
}

impl Keys<'_, '_> {
    /// `q · k` of every position, in whole tiles.
    ///
    /// # Safety
    /// The CPU must have the instructions of `P`.
    #[inline(always)]
    unsafe fn score<P: Products, const TILES: usize, const QUERIES: usize>(
        &self,
        queries: [*const u32; QUERIES],
        scores: &mut [[f32; STEP]; QUERIES],
    ) {
        let whole = self.tiles() / TILES * TILES;
        for tile in (0..whole).step_by(TILES) {
            // SAFETY: passed on to the caller.
            unsafe { self.score_tiles::<P, TILES, QUERIES>(queries, tile, scores) };
        }
        for tile in whole..self.tiles() {
            // SAFETY: passed on to the caller.
            unsafe { self.score_tiles::<P, 1, QUERIES>(queries, tile, scores) };
        }
    }

    #[inline(always)]
    unsafe fn score_tiles<P: Products, const TILES: usize, const QUERIES: usize>(
        &self,
        queries: [*const u32; QUERIES],
        tile: usize,
        scores: &mut [[f32; STEP]; QUERIES],
    ) {
        let head_dim = self.task.shape.head_dim;
        if self.are_first() {
            for tile in tile..tile + TILES {
                self.ask_for_values::<P::Form>(tile);
            }
        }
        let keys: [*const u32; TILES] = std::array::from_fn(|i| self.keys(tile + i).as_ptr());
        // SAFETY: the caller promises the instructions; dimensions are the head's, a tile is within the scores.
        unsafe {
            let mut sums = [[P::Lanes::splat(0.0); QUERIES]; TILES];
            for first in (0..head_dim).step_by(BLOCK) {
                let dimensions = first..head_dim.min(first + BLOCK);
                let rounded = first / BLOCK * P::BLOCK_WORDS;
                let mut of_block = queries;
                for queries in &mut of_block {
                    *queries = queries.add(rounded);
                }
                let mut of_tiles = keys;
                for keys in &mut of_tiles {
                    *keys = keys.add(first / P::Form::PER_WORD * TOKENS);
                }
                let [even, odd] = P::multiply_keys::<TILES, QUERIES>(of_tiles, of_block, dimensions.len());
                for (t, sums) in sums.iter_mut().enumerate() {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.add(even[t][i].add(odd[t][i]));
                    }
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                for (sum, scores) in sums.iter().zip(scores.iter_mut()) {
                    let scores = &mut scores.as_chunks_mut::<TOKENS>().0[tile + t];
                    sum.store(scores.as_mut_ptr());
                    if P::Form::SCALED {
                        self.scale::<P::Lanes>(tile + t, &self.task.pages.k_scales, scores);
                    }
                }
            }
        }
    }

    /// As they are multiplied with values: times their scales, in bf16.
    ///
    /// # Safety
    /// The CPU must have the instructions of `P`.
    #[inline(always)]
    unsafe fn round_weights<P: Products>(&self, weights: &mut [f32; STEP], to: &mut [u32; STEP]) {
        if P::Form::SCALED {
            let tiles = weights.as_chunks_mut::<TOKENS>().0;
            for (tile, weights) in tiles[..self.tiles()].iter_mut().enumerate() {
                // SAFETY: passed on to the caller.
                unsafe { self.scale::<P::Lanes>(tile, &self.task.pages.v_scales, weights) };
            }
        }
        // SAFETY: passed on to the caller.
        unsafe { P::round_weights(weights, self.tiles().div_ceil(TILES_PER_BLOCK), to) };
    }

    /// Adds the weighted values to each query's sums.
    ///
    /// # Safety
    /// The CPU must have the instructions of `P`.
    #[inline(always)]
    unsafe fn accumulate<P: Products, const VECTORS: usize, const QUERIES: usize>(
        &self,
        step: &Step<'_, QUERIES>,
        sums: &mut [&mut [f32]; QUERIES],
    ) {
        let values = self.all_values();
        let vectors = self.task.shape.head_dim.div_ceil(P::Lanes::COUNT);
        let whole = vectors / VECTORS * VECTORS;
        for vector in (0..whole).step_by(VECTORS) {
            // SAFETY: passed on to the caller.
            unsafe { self.accumulate_vectors::<P, VECTORS, QUERIES>(step, &values, vector, sums) };
        }
        for vector in whole..vectors {
            // SAFETY: passed on to the caller.
            unsafe { self.accumulate_vectors::<P, 1, QUERIES>(step, &values, vector, sums) };
        }
    }

    #[inline(always)]
    unsafe fn accumulate_vectors<P: Products, const VECTORS: usize, const QUERIES: usize>(
        &self,
        step: &Step<'_, QUERIES>,
        values: &[[Values; TILES_PER_BLOCK]; BLOCKS],
        vector: usize,
        sums: &mut [&mut [f32]; QUERIES],
    ) {
        // SAFETY: passed on to the caller; positions are within the step, columns within the head.
        unsafe {
            let of_blocks = &values[..self.tiles().div_ceil(TILES_PER_BLOCK)];
            let mut values = [[P::Lanes::splat(0.0); VECTORS]; QUERIES];
            for (block, values_of_block) in of_blocks.iter().enumerate() {
                if vector == 0 && self.are_first() {
                    for tile in block * TILES_PER_BLOCK..(block + 1) * TILES_PER_BLOCK {
                        self.ask_for_next_keys::<P::Form>(tile);
                    }
                }
                let mut tiles = *values_of_block;
                for values in &mut tiles {
                    values.words = values.words.wrapping_add(vector * P::Lanes::COUNT);
                }
                let mut weights = [std::ptr::null(); QUERIES];
                for (weights, of_step) in weights.iter_mut().zip(step.weights) {
                    *weights = of_step.as_ptr().add(block * P::BLOCK_WORDS);
                }
                let [even, odd] = P::multiply_values::<VECTORS, QUERIES>(tiles, weights);
                for (i, values) in values.iter_mut().enumerate() {
                    for (v, value) in values.iter_mut().enumerate() {
                        *value = value.add(even[i][v].add(odd[i][v]));
                    }
                }
            }
            for (i, (sums, values)) in sums.iter_mut().zip(values).enumerate() {
                if step.seen[i] == 0 {
                    continue;
                }
                let corr = P::Lanes::splat(step.corr[i]);
                for (v, value) in values.into_iter().enumerate() {
                    let column = (vector + v) * P::Lanes::COUNT;
                    let sum: P::Lanes = load_column(sums, column);
                    store_column(sum.fma(corr, value), sums, column);
                }
            }
        }
    }

    /// The values of all positions.
    #[inline(always)]
    fn all_values(&self) -> [[Values; TILES_PER_BLOCK]; BLOCKS] {
        let stride = self.task.pages.shape.v_stride();
        let mut all = [[Values::NONE; TILES_PER_BLOCK]; BLOCKS];
        for (tile, values) in all.as_flattened_mut()[..self.tiles()].iter_mut().enumerate() {
            *values = Values {
                words: self.values(tile).as_ptr(),
                stride,
                positions: (self.count - tile * TOKENS).min(TOKENS),
            };
        }
        all
    }
}

/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
unsafe fn load_column<L: Lanes>(row: &[f32], first: usize) -> L {
    let part = &row[first..row.len().min(first + L::COUNT)];
    // SAFETY: the caller promises the instructions; the part is readable.
    unsafe { L::load_part(part.as_ptr(), part.len()) }
}

/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
unsafe fn store_column<L: Lanes>(lanes: L, row: &mut [f32], first: usize) {
    let last = row.len().min(first + L::COUNT);
    let part = &mut row[first..last];
    // SAFETY: the part is writable.
    unsafe { lanes.store_part(part.as_mut_ptr(), part.len()) }
}
