//! How a few queries meet keys, and weights values: 32 terms at a time, of which the even and the odd ones have a sum each. All ways
//! give the same bits.

use std::marker::PhantomData;
use std::ops::Range;

use super::TILES_PER_BLOCK;
use crate::cpu::lanes::{Lanes, PairLanes};
use crate::cpu::pages::{Bf16, Form, TOKENS};
use crate::cpu::pairing::{Pairing, QUAD};
use crate::cpu::rounded::PAIRS;
use crate::reference::STEP;
use crate::scalar::{BLOCK, factor};

/// Sums of the even terms, and of the odd ones.
pub type Halves<L, const COLUMNS: usize, const ROWS: usize> = [[[L; COLUMNS]; ROWS]; 2];

pub trait Products {
    type Lanes: Lanes;
    type Form: Form;

    /// That 32 numbers of a query, or 32 weights, take.
    const BLOCK_WORDS: usize;

    /// Of dimensions and positions in words of bf16.
    const PAIRING: Pairing;

    /// A query as keys meet it, with zeros behind it as far as the last word of a key reaches.
    ///
    /// # Safety
    /// There is room for whole blocks, and the CPU must have the instructions.
    unsafe fn round_query(q: &[f32], to: *mut u32);

    /// Weights of the first `blocks` blocks, as values meet them.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn round_weights(weights: &[f32; STEP], blocks: usize, to: &mut [u32; STEP]);

    /// The products of a block of so many dimensions, at most 32, with `TILES` tiles of keys. Both begin with the block.
    ///
    /// # Safety
    /// The CPU must have the instructions; keys are paired as [`PAIRING`](Self::PAIRING) says; they and queries have the dimensions, by
    /// neighbours as many as make their last word whole, crossed a multiple of [`QUAD`].
    unsafe fn multiply_keys<const TILES: usize, const QUERIES: usize>(
        keys: [*const u32; TILES],
        queries: [*const u32; QUERIES],
        dimensions: usize,
    ) -> Halves<Self::Lanes, QUERIES, TILES>;

    /// The weighted values of a block of positions. `weights` begin with it.
    ///
    /// # Safety
    /// The CPU must have the instructions; each tile has `VECTORS` vectors of values for its positions, which are paired as
    /// [`PAIRING`](Self::PAIRING) says.
    unsafe fn multiply_values<const VECTORS: usize, const QUERIES: usize>(
        tiles: [Values; TILES_PER_BLOCK],
        weights: [*const u32; QUERIES],
    ) -> Halves<Self::Lanes, VECTORS, QUERIES>;
}

/// A tile of them.
#[derive(Clone, Copy)]
pub struct Values {
    pub words: *const u32,
    /// Words from some positions to the next.
    pub stride: usize,
    /// That some query sees, at most 16. What is behind them may be of another sequence, and no number.
    pub positions: usize,
}

impl Values {
    pub const NONE: Values = Values {
        words: std::ptr::null(),
        stride: 0,
        positions: 0,
    };
}

/// Keys and values are widened to f32, as queries and weights are.
pub struct Wide<L, F>(PhantomData<(L, F)>);

/// Two terms of one parity at a time.
pub struct Crossed<L>(PhantomData<L>);

impl<L: Lanes, F: Form> Products for Wide<L, F> {
    type Lanes = L;
    type Form = F;

    const BLOCK_WORDS: usize = BLOCK;

    const PAIRING: Pairing = Pairing::Neighbours;

    #[inline(always)]
    unsafe fn round_query(q: &[f32], to: *mut u32) {
        // SAFETY: the caller promises room for up to three zeros behind the numbers.
        unsafe {
            for (d, q) in q.iter().enumerate() {
                to.add(d).write(factor(*q).to_bits());
            }
            for d in q.len()..q.len().next_multiple_of(F::PER_WORD) {
                to.add(d).write(0);
            }
        }
    }

    #[inline(always)]
    unsafe fn round_weights(weights: &[f32; STEP], blocks: usize, to: &mut [u32; STEP]) {
        for (to, weight) in to.iter_mut().zip(&weights[..blocks * BLOCK]) {
            *to = factor(*weight).to_bits();
        }
    }

    #[inline(always)]
    unsafe fn multiply_keys<const TILES: usize, const QUERIES: usize>(
        keys: [*const u32; TILES],
        queries: [*const u32; QUERIES],
        dimensions: usize,
    ) -> Halves<L, QUERIES, TILES> {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut halves = [[[L::splat(0.0); QUERIES]; TILES]; 2];
            if fit::<L, F>(TILES * QUERIES) {
                for d in (0..dimensions).step_by(F::PER_WORD) {
                    for index in 0..F::PER_WORD {
                        let half = &mut halves[index % 2];
                        add_dimension::<L, F, TILES, QUERIES>(keys, queries, d, index, half);
                    }
                }
            } else {
                for (parity, half) in halves.iter_mut().enumerate() {
                    let mut sums = *half;
                    for d in (0..dimensions).step_by(F::PER_WORD) {
                        for index in (parity..F::PER_WORD).step_by(2) {
                            add_dimension::<L, F, TILES, QUERIES>(keys, queries, d, index, &mut sums);
                        }
                    }
                    *half = sums;
                }
            }
            halves
        }
    }

    #[inline(always)]
    unsafe fn multiply_values<const VECTORS: usize, const QUERIES: usize>(
        tiles: [Values; TILES_PER_BLOCK],
        weights: [*const u32; QUERIES],
    ) -> Halves<L, VECTORS, QUERIES> {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut halves = [[[L::splat(0.0); VECTORS]; QUERIES]; 2];
            if fit::<L, F>(VECTORS * QUERIES) {
                for (tile, values) in tiles.into_iter().enumerate() {
                    let (words, rest) = (values.positions / F::PER_WORD, values.positions % F::PER_WORD);
                    for word in 0..words {
                        let (at, weights) = values.word::<F, QUERIES>(word, weights, tile);
                        add_word::<L, F, VECTORS, QUERIES>(at, 0..F::PER_WORD, weights, &mut halves[0]);
                        add_word::<L, F, VECTORS, QUERIES>(at, 1..F::PER_WORD, weights, &mut halves[1]);
                    }
                    let (at, weights) = values.word::<F, QUERIES>(words, weights, tile);
                    add_word::<L, F, VECTORS, QUERIES>(at, 0..rest, weights, &mut halves[0]);
                    add_word::<L, F, VECTORS, QUERIES>(at, 1..rest, weights, &mut halves[1]);
                }
            } else {
                for (parity, half) in halves.iter_mut().enumerate() {
                    let mut sums = *half;
                    for (tile, values) in tiles.into_iter().enumerate() {
                        let (words, rest) = (values.positions / F::PER_WORD, values.positions % F::PER_WORD);
                        for word in 0..words {
                            let (at, weights) = values.word::<F, QUERIES>(word, weights, tile);
                            add_word::<L, F, VECTORS, QUERIES>(at, parity..F::PER_WORD, weights, &mut sums);
                        }
                        let (at, weights) = values.word::<F, QUERIES>(words, weights, tile);
                        add_word::<L, F, VECTORS, QUERIES>(at, parity..rest, weights, &mut sums);
                    }
                    *half = sums;
                }
            }
            halves
        }
    }
}

impl Values {
    /// A word of positions, and what they are weighted with; `weights` begin with the block that `tile` is of.
    #[inline(always)]
    fn word<F: Form, const QUERIES: usize>(
        self,
        word: usize,
        weights: [*const u32; QUERIES],
        tile: usize,
    ) -> (*const u32, [*const u32; QUERIES]) {
        let first = tile * TOKENS + word * F::PER_WORD;
        let mut of_word = weights;
        for weights in &mut of_word {
            *weights = weights.wrapping_add(first);
        }
        (self.words.wrapping_add(word * self.stride), of_word)
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
    queries: [*const u32; QUERIES],
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
        for (i, q) in queries.into_iter().enumerate() {
            let q = L::splat(*q.add(first + index).cast::<f32>());
            for (sums, k) in sums.iter_mut().zip(k) {
                sums[i] = q.fma(k, sums[i]);
            }
        }
    }
}

/// Adds the values of every other of some positions of a word.
///
/// # Safety
/// The CPU must have the instructions of `L`; `words` points to `VECTORS` vectors, whose elements are the positions', unless there are
/// none.
#[inline(always)]
unsafe fn add_word<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
    words: *const u32,
    positions: Range<usize>,
    weights: [*const u32; QUERIES],
    sums: &mut [[L; VECTORS]; QUERIES],
) {
    for index in positions.step_by(2) {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut v = [L::splat(0.0); VECTORS];
            for (i, v) in v.iter_mut().enumerate() {
                *v = F::load(words.add(i * L::COUNT), index);
            }
            for (sums, weights) in sums.iter_mut().zip(weights) {
                let weight = L::splat(*weights.add(index).cast::<f32>());
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = weight.fma(v, *sum);
                }
            }
        }
    }
}

impl<L: PairLanes> Products for Crossed<L> {
    type Lanes = L;
    type Form = Bf16;

    const BLOCK_WORDS: usize = PAIRS;

    const PAIRING: Pairing = Pairing::Crossed;

    #[inline(always)]
    unsafe fn round_query(q: &[f32], to: *mut u32) {
        for (block, q) in q.chunks(BLOCK).enumerate() {
            let mut numbers = [0.0; BLOCK];
            numbers[..q.len()].copy_from_slice(q);
            // SAFETY: passed on to the caller.
            unsafe { L::cross(&numbers, to.add(block * PAIRS)) };
        }
    }

    #[inline(always)]
    unsafe fn round_weights(weights: &[f32; STEP], blocks: usize, to: &mut [u32; STEP]) {
        let weights = &weights.as_chunks::<BLOCK>().0[..blocks];
        for (to, weights) in to.as_chunks_mut::<PAIRS>().0.iter_mut().zip(weights) {
            // SAFETY: passed on to the caller.
            unsafe { L::cross(weights, to.as_mut_ptr()) };
        }
    }

    #[inline(always)]
    unsafe fn multiply_keys<const TILES: usize, const QUERIES: usize>(
        keys: [*const u32; TILES],
        queries: [*const u32; QUERIES],
        dimensions: usize,
    ) -> Halves<L, QUERIES, TILES> {
        debug_assert!(dimensions.is_multiple_of(QUAD), "{dimensions} dimensions");
        // SAFETY: passed on to the caller.
        unsafe {
            let mut halves = [[[L::splat(0.0); QUERIES]; TILES]; 2];
            for word in (0..dimensions / 2).step_by(2) {
                let mut words = [[L::splat_word(0); 2]; TILES];
                for (words, keys) in words.iter_mut().zip(keys) {
                    let at = keys.add(word * TOKENS);
                    *words = [L::load_words(at), L::load_words(at.add(TOKENS))];
                }
                // Query by query: all of them at a time would not leave registers for the sums.
                for (i, q) in queries.into_iter().enumerate() {
                    for t in 0..TILES {
                        let sums = [halves[0][t][i], halves[1][t][i]];
                        [halves[0][t][i], halves[1][t][i]] = L::add_two(sums, words[t], q.add(word));
                    }
                }
            }
            halves
        }
    }

    #[inline(always)]
    unsafe fn multiply_values<const VECTORS: usize, const QUERIES: usize>(
        tiles: [Values; TILES_PER_BLOCK],
        weights: [*const u32; QUERIES],
    ) -> Halves<L, VECTORS, QUERIES> {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut halves = [[[L::splat(0.0); VECTORS]; QUERIES]; 2];
            // Most are full; of loops whose length is known sums stay where they are.
            if tiles.iter().all(|values| values.positions == TOKENS) {
                for (tile, values) in tiles.into_iter().enumerate() {
                    values.add_quads::<L, VECTORS, QUERIES>(TOKENS, weights, tile, &mut halves);
                }
                return halves;
            }
            for (tile, values) in tiles.into_iter().enumerate() {
                let whole = values.positions / QUAD * QUAD;
                values.add_quads::<L, VECTORS, QUERIES>(whole, weights, tile, &mut halves);
                if whole < values.positions {
                    let words = values.rest::<L, VECTORS>();
                    add_quad::<L, VECTORS, QUERIES>(words, weights, tile * TOKENS + whole, &mut halves);
                }
            }
            halves
        }
    }
}

impl Values {
    /// Adds those of the first `positions`, which are whole quads, of tile `tile` of the block.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`; there are such positions, with `VECTORS` vectors of values; `weights` begin with the block.
    #[inline(always)]
    unsafe fn add_quads<L: PairLanes, const VECTORS: usize, const QUERIES: usize>(
        self,
        positions: usize,
        weights: [*const u32; QUERIES],
        tile: usize,
        halves: &mut Halves<L, VECTORS, QUERIES>,
    ) {
        for first in (0..positions).step_by(QUAD) {
            // SAFETY: passed on to the caller.
            unsafe {
                let at = self.words.add(first / 2 * self.stride);
                let words = [load::<L, VECTORS>(at), load::<L, VECTORS>(at.add(self.stride))];
                add_quad::<L, VECTORS, QUERIES>(words, weights, tile * TOKENS + first, halves);
            }
        }
    }

    /// The two words of those positions that fill no quad, with zeros for the rest of it.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`; there are such positions, with `VECTORS` vectors of values.
    #[inline(always)]
    unsafe fn rest<L: PairLanes, const VECTORS: usize>(self) -> [[L::Words; VECTORS]; 2] {
        let (first, seen) = (self.positions / QUAD * QUAD, self.positions % QUAD);
        // SAFETY: passed on to the caller; the second word is not read where none of its positions is seen.
        unsafe {
            let at = self.words.add(first / 2 * self.stride);
            let even = load::<L, VECTORS>(at);
            let odd = match seen {
                1 => [L::splat_word(0); VECTORS],
                _ => high::<L, VECTORS>(load::<L, VECTORS>(at.add(self.stride))),
            };
            match seen {
                1 | 2 => [high::<L, VECTORS>(even), odd],
                _ => [even, odd],
            }
        }
    }
}

/// # Safety
/// The CPU must have the instructions of `L`; there are `VECTORS` vectors of words.
#[inline(always)]
unsafe fn load<L: PairLanes, const VECTORS: usize>(from: *const u32) -> [L::Words; VECTORS] {
    // SAFETY: passed on to the caller.
    unsafe {
        let mut words = [L::splat_word(0); VECTORS];
        for (v, words) in words.iter_mut().enumerate() {
            *words = L::load_words(from.add(v * L::COUNT));
        }
        words
    }
}

/// The high halves, where they are.
///
/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
unsafe fn high<L: PairLanes, const VECTORS: usize>(mut words: [L::Words; VECTORS]) -> [L::Words; VECTORS] {
    for words in &mut words {
        // SAFETY: passed on to the caller.
        unsafe { *words = L::and(*words, L::splat_word(0xffff_0000)) };
    }
    words
}

/// Adds the values of four positions, the first of which is position `t` of the block.
///
/// # Safety
/// The CPU must have the instructions of `L`; `weights` begin with the block.
#[inline(always)]
unsafe fn add_quad<L: PairLanes, const VECTORS: usize, const QUERIES: usize>(
    words: [[L::Words; VECTORS]; 2],
    weights: [*const u32; QUERIES],
    t: usize,
    halves: &mut Halves<L, VECTORS, QUERIES>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        for (i, weights) in weights.into_iter().enumerate() {
            for v in 0..VECTORS {
                let sums = [halves[0][i][v], halves[1][i][v]];
                [halves[0][i][v], halves[1][i][v]] =
                    L::add_two(sums, [words[0][v], words[1][v]], weights.add(t / 2));
            }
        }
    }
}
