//! Attention of up to [`QUERIES_MAX`] queries by vectors.

use std::mem::MaybeUninit;

use super::{BLOCKS, Keys, Query, Softmax, TILES_PER_BLOCK, Task, Unit};
use crate::cpu::lanes::Lanes;
use crate::cpu::pages::{Form, TOKENS};
use crate::ops::HEAD_DIM_MAX;
use crate::reference::STEP;
use crate::scalar::{BLOCK, factor};

/// So many sums of 16 lanes stay in registers beside the keys.
pub const QUERIES_MAX: usize = 6;

/// Computes one unit of up to [`QUERIES_MAX`] queries. `TILES` tiles of keys and `VECTORS` vectors of a value are kept in
/// registers at a time; `L` has 16 lanes.
///
/// # Safety
/// The CPU must have the instructions of `L`, the pages be of the form `F`, and no other thread may compute the same queries.
#[inline(always)]
pub unsafe fn attend<L: Lanes, F: Form, const TILES: usize, const VECTORS: usize>(
    task: &Task<'_>,
    unit: &Unit<'_>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match unit.queries.len() {
            1 => attend_queries::<L, F, TILES, VECTORS, 1>(task, unit),
            2 => attend_queries::<L, F, TILES, VECTORS, 2>(task, unit),
            3 => attend_queries::<L, F, TILES, VECTORS, 3>(task, unit),
            4 => attend_queries::<L, F, TILES, VECTORS, 4>(task, unit),
            5 => attend_queries::<L, F, TILES, VECTORS, 5>(task, unit),
            6 => attend_queries::<L, F, TILES, VECTORS, 6>(task, unit),
            count => panic!("a unit of {count} queries"),
        }
    }
}

#[inline(always)]
unsafe fn attend_queries<
    L: Lanes,
    F: Form,
    const TILES: usize,
    const VECTORS: usize,
    const QUERIES: usize,
>(
    task: &Task<'_>,
    unit: &Unit<'_>,
) {
    let queries: [Query; QUERIES] = std::array::from_fn(|i| Query::new(task, unit, i));
    let mut room = MaybeUninit::<Rounded<QUERIES>>::uninit();
    let rounded = round(task, &queries, &mut room);
    // SAFETY: these queries are this thread's alone, as the caller promises, and each has one place.
    let mut sums: [&mut [f32]; QUERIES] = std::array::from_fn(|i| unsafe { queries[i].sums(task) });
    sums.iter_mut().for_each(|sums| sums.fill(0.0));
    let mut softmax = [Softmax::NOTHING; QUERIES];
    let mut weights = [[0.0f32; STEP]; QUERIES];
    for keys in Keys::steps(task, unit) {
        let seen: [usize; QUERIES] = std::array::from_fn(|i| queries[i].seen(keys.first));
        // SAFETY: the caller promises the instructions.
        unsafe {
            keys.score::<L, F, TILES, QUERIES>(rounded, &mut weights);
            for (i, (softmax, weights)) in softmax.iter_mut().zip(&mut weights).enumerate() {
                softmax.weigh::<L>(seen[i], weights, task.shape.scale);
                keys.round_weights::<L, F>(weights);
            }
            let step = Step {
                seen,
                corr: std::array::from_fn(|i| softmax[i].corr),
                weights: &weights,
            };
            keys.accumulate::<L, F, VECTORS, QUERIES>(&step, &mut sums);
        }
    }
    for (sums, softmax) in sums.iter_mut().zip(&softmax) {
        sums.iter_mut().for_each(|sum| *sum /= softmax.l);
    }
}

/// What a step adds, and to what.
struct Step<'a, const QUERIES: usize> {
    seen: [usize; QUERIES],
    corr: [f32; QUERIES],
    weights: &'a [[f32; STEP]; QUERIES],
}

/// Queries in bf16, as f32.
type Rounded<const QUERIES: usize> = [[f32; HEAD_DIM_MAX]; QUERIES];

/// With zeros behind them, as far as a word of a key reaches.
#[inline(always)]
fn round<const QUERIES: usize>(
    task: &Task<'_>,
    queries: &[Query; QUERIES],
    room: &mut MaybeUninit<Rounded<QUERIES>>,
) -> [*const f32; QUERIES] {
    let first = room.as_mut_ptr().cast::<f32>();
    std::array::from_fn(|i| {
        let q = queries[i].numbers(task);
        let to = first.wrapping_add(i * HEAD_DIM_MAX);
        // SAFETY: a head has at most `HEAD_DIM_MAX` dimensions, so the numbers and up to three zeros are within the query's room.
        unsafe {
            for (d, q) in q.iter().enumerate() {
                to.add(d).write(factor(*q));
            }
            for d in q.len()..q.len().next_multiple_of(4) {
                to.add(d).write(0.0);
            }
        }
        to.cast_const()
    })
}

impl Keys<'_, '_> {
    /// `q · k` of every position, in whole tiles.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn score<L: Lanes, F: Form, const TILES: usize, const QUERIES: usize>(
        &self,
        queries: [*const f32; QUERIES],
        scores: &mut [[f32; STEP]; QUERIES],
    ) {
        let whole = self.tiles() / TILES * TILES;
        for tile in (0..whole).step_by(TILES) {
            // SAFETY: passed on to the caller.
            unsafe { self.score_tiles::<L, F, TILES, QUERIES>(queries, tile, scores) };
        }
        for tile in whole..self.tiles() {
            // SAFETY: passed on to the caller.
            unsafe { self.score_tiles::<L, F, 1, QUERIES>(queries, tile, scores) };
        }
    }

    #[inline(always)]
    unsafe fn score_tiles<L: Lanes, F: Form, const TILES: usize, const QUERIES: usize>(
        &self,
        queries: [*const f32; QUERIES],
        tile: usize,
        scores: &mut [[f32; STEP]; QUERIES],
    ) {
        let head_dim = self.task.shape.head_dim;
        if self.are_first() {
            for tile in tile..tile + TILES {
                self.ask_for_values::<F>(tile);
            }
        }
        let keys: [*const u32; TILES] = std::array::from_fn(|i| self.keys(tile + i).as_ptr());
        // SAFETY: the caller promises the instructions; `d` is within the head or its last word, a tile within the scores.
        unsafe {
            let mut sums = [[L::splat(0.0); QUERIES]; TILES];
            for first in (0..head_dim).step_by(BLOCK) {
                let end = head_dim.min(first + BLOCK);
                let mut halves = [[[L::splat(0.0); QUERIES]; TILES]; 2];
                if fit::<L, F>(TILES * QUERIES) {
                    for d in (first..end).step_by(F::PER_WORD) {
                        for index in 0..F::PER_WORD {
                            let half = &mut halves[index % 2];
                            add_dimension::<L, F, TILES, QUERIES>(keys, queries, d, index, half);
                        }
                    }
                } else {
                    for (parity, half) in halves.iter_mut().enumerate() {
                        let mut sums = *half;
                        for d in (first..end).step_by(F::PER_WORD) {
                            for index in (parity..F::PER_WORD).step_by(2) {
                                add_dimension::<L, F, TILES, QUERIES>(keys, queries, d, index, &mut sums);
                            }
                        }
                        *half = sums;
                    }
                }
                let [even, odd] = halves;
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
                    if F::SCALED {
                        self.scale::<L>(tile + t, &self.task.pages.k_scales, scores);
                    }
                }
            }
        }
    }

    /// As they are multiplied with values: times their scales, in bf16.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn round_weights<L: Lanes, F: Form>(&self, weights: &mut [f32; STEP]) {
        if F::SCALED {
            let tiles = weights.as_chunks_mut::<TOKENS>().0;
            for (tile, weights) in tiles[..self.tiles()].iter_mut().enumerate() {
                // SAFETY: passed on to the caller.
                unsafe { self.scale::<L>(tile, &self.task.pages.v_scales, weights) };
            }
        }
        for weight in &mut weights[..self.tiles() * TOKENS] {
            *weight = factor(*weight);
        }
    }

    /// Adds the weighted values to each query's sums.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn accumulate<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
        &self,
        step: &Step<'_, QUERIES>,
        sums: &mut [&mut [f32]; QUERIES],
    ) {
        let vectors = self.task.shape.head_dim.div_ceil(L::COUNT);
        let whole = vectors / VECTORS * VECTORS;
        for vector in (0..whole).step_by(VECTORS) {
            // SAFETY: passed on to the caller.
            unsafe { self.accumulate_vectors::<L, F, VECTORS, QUERIES>(step, vector, sums) };
        }
        for vector in whole..vectors {
            // SAFETY: passed on to the caller.
            unsafe { self.accumulate_vectors::<L, F, 1, QUERIES>(step, vector, sums) };
        }
    }

    #[inline(always)]
    unsafe fn accumulate_vectors<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
        &self,
        step: &Step<'_, QUERIES>,
        vector: usize,
        sums: &mut [&mut [f32]; QUERIES],
    ) {
        // SAFETY: passed on to the caller; positions are within the step, columns within the head.
        unsafe {
            let mut values = [[L::splat(0.0); VECTORS]; QUERIES];
            for block in 0..BLOCKS.min(self.tiles().div_ceil(TILES_PER_BLOCK)) {
                if vector == 0 && self.are_first() {
                    for tile in block * TILES_PER_BLOCK..(block + 1) * TILES_PER_BLOCK {
                        self.ask_for_next_keys::<F>(tile);
                    }
                }
                let [even, odd] = self.weighted::<L, F, VECTORS, QUERIES>(step.weights, block, vector);
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
                let corr = L::splat(step.corr[i]);
                for (v, value) in values.into_iter().enumerate() {
                    let column = (vector + v) * L::COUNT;
                    let sum: L = load_column(sums, column);
                    store_column(sum.fma(corr, value), sums, column);
                }
            }
        }
    }

    /// Words of a tile whose positions some query sees, and such positions of the next word. What is behind them may be of another
    /// sequence, and no number.
    #[inline(always)]
    fn words_of<F: Form>(&self, tile: usize) -> (usize, usize) {
        let positions = (self.count - tile * TOKENS).min(TOKENS);
        (positions / F::PER_WORD, positions % F::PER_WORD)
    }

    /// Of a block of positions, the weighted values of the even ones and of the odd ones.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn weighted<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
        &self,
        weights: &[[f32; STEP]; QUERIES],
        block: usize,
        vector: usize,
    ) -> [[[L; VECTORS]; QUERIES]; 2] {
        let stride = self.task.pages.shape.v_stride();
        let tiles = block * TILES_PER_BLOCK..self.tiles().min((block + 1) * TILES_PER_BLOCK);
        // SAFETY: the caller's promise; a tile has words of 16 values, `stride` of them for each position.
        unsafe {
            let mut halves = [[[L::splat(0.0); VECTORS]; QUERIES]; 2];
            if fit::<L, F>(VECTORS * QUERIES) {
                for tile in tiles {
                    let values = self.values(tile).as_ptr().add(vector * L::COUNT);
                    let (words, rest) = self.words_of::<F>(tile);
                    for word in 0..words {
                        let (t, words) = (tile * TOKENS + word * F::PER_WORD, values.add(word * stride));
                        add_word::<L, F, VECTORS, QUERIES>(words, 0, F::PER_WORD, weights, t, &mut halves[0]);
                        add_word::<L, F, VECTORS, QUERIES>(words, 1, F::PER_WORD, weights, t, &mut halves[1]);
                    }
                    let (t, words) = (
                        tile * TOKENS + words * F::PER_WORD,
                        values.wrapping_add(words * stride),
                    );
                    add_word::<L, F, VECTORS, QUERIES>(words, 0, rest, weights, t, &mut halves[0]);
                    add_word::<L, F, VECTORS, QUERIES>(words, 1, rest, weights, t, &mut halves[1]);
                }
            } else {
                for (parity, half) in halves.iter_mut().enumerate() {
                    let mut sums = *half;
                    for tile in tiles.clone() {
                        let values = self.values(tile).as_ptr().add(vector * L::COUNT);
                        let (words, rest) = self.words_of::<F>(tile);
                        for word in 0..words {
                            let (t, words) = (tile * TOKENS + word * F::PER_WORD, values.add(word * stride));
                            add_word::<L, F, VECTORS, QUERIES>(
                                words,
                                parity,
                                F::PER_WORD,
                                weights,
                                t,
                                &mut sums,
                            );
                        }
                        let (t, words) = (
                            tile * TOKENS + words * F::PER_WORD,
                            values.wrapping_add(words * stride),
                        );
                        add_word::<L, F, VECTORS, QUERIES>(words, parity, rest, weights, t, &mut sums);
                    }
                    *half = sums;
                }
            }
            halves
        }
    }
}

/// Whether so many sums twice, of even and of odd terms, take half of the registers at most. Else the terms are gone through
/// twice.
#[inline(always)]
const fn fit<L: Lanes, F: Form>(sums: usize) -> bool {
    2 * sums + 4 * F::PER_WORD <= L::REGISTERS
}

/// Adds one dimension's products to the sums of `TILES` tiles.
///
/// # Safety
/// The CPU must have the instructions of `L`; keys and queries have dimension `first + index`, where `first` begins a word.
#[inline(always)]
unsafe fn add_dimension<L: Lanes, F: Form, const TILES: usize, const QUERIES: usize>(
    keys: [*const u32; TILES],
    q: [*const f32; QUERIES],
    first: usize,
    index: usize,
    sums: &mut [[L; QUERIES]; TILES],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut k = [L::splat(0.0); TILES];
        for (k, keys) in k.iter_mut().zip(keys) {
            *k = F::load(keys.add(first / F::PER_WORD * TOKENS), index);
        }
        // Query by query: all of them at a time would not leave registers for the sums.
        for (i, q) in q.into_iter().enumerate() {
            let q = L::splat(*q.add(first + index));
            for (sums, k) in sums.iter_mut().zip(k) {
                sums[i] = q.fma(k, sums[i]);
            }
        }
    }
}

/// Adds the values of every other position of a word, from the one at `parity` on and before `end`; `t` is the first of the word.
///
/// # Safety
/// As [`add_position`], unless there is none.
#[inline(always)]
unsafe fn add_word<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
    words: *const u32,
    parity: usize,
    end: usize,
    weights: &[[f32; STEP]; QUERIES],
    t: usize,
    sums: &mut [[L; VECTORS]; QUERIES],
) {
    for index in (parity..end).step_by(2) {
        // SAFETY: passed on to the caller.
        unsafe { add_position::<L, F, VECTORS, QUERIES>(words, index, weights, t + index, sums) };
    }
}

/// Adds the values of position `t` of a step.
///
/// # Safety
/// The CPU must have the instructions of `L`; `words` points to `VECTORS` vectors, whose elements `index` are the position's.
#[inline(always)]
unsafe fn add_position<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
    words: *const u32,
    index: usize,
    weights: &[[f32; STEP]; QUERIES],
    t: usize,
    sums: &mut [[L; VECTORS]; QUERIES],
) {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut v = [L::splat(0.0); VECTORS];
        for (i, v) in v.iter_mut().enumerate() {
            *v = F::load(words.add(i * L::COUNT), index);
        }
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = L::splat(*weights.get_unchecked(t));
            for (sum, v) in sums.iter_mut().zip(v) {
                *sum = weight.fma(v, *sum);
            }
        }
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
