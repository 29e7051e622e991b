//! Attention over paged keys and values. The exact arithmetic is in [`crate::reference`].
//!
//! A unit of work is up to [`QUERIES_MAX`] queries (pairs of row and head) that share a sequence and a KV head, so that
//! each key and value is widened once for all of them.

use std::ops::Range;

use crate::AttentionShape;
use crate::cpu::lanes::{Lanes, exp, greatest, sum};
use crate::cpu::pages::{Form, Pages, TOKENS, TileAt};
use crate::cpu::shared::Shared;
use crate::ops::SequenceRows;
use crate::reference::STEP;
use crate::tensor::Tensor;

/// So many sums of 16 lanes stay in registers beside the keys.
pub const QUERIES_MAX: usize = 6;

/// The operands of one call.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub shape: &'a AttentionShape,
    pub qkv: &'a Tensor,
    pub pages: &'a Pages,
    /// `(rows, heads · head_dim)`
    pub out: Shared<'a, f32>,
}

/// Queries that share keys.
#[derive(Clone)]
pub struct Unit<'a> {
    pub sequence: &'a SequenceRows,
    pub kv_head: usize,
    /// The query heads of `kv_head`.
    pub heads: Range<usize>,
    /// Among the sequence's rows times `heads`, row by row; 1 to [`QUERIES_MAX`].
    pub queries: Range<usize>,
}

/// Computes one unit. `TILES` tiles of keys and `VECTORS` vectors of a value are kept in registers at a time; `L` has 16
/// lanes.
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
    let mut queries: [Query<'_>; QUERIES] =
        std::array::from_fn(|i| Query::new(task, unit, unit.queries.start + i));
    let mut weights = [[0.0f32; STEP]; QUERIES];
    let positions = queries[QUERIES - 1].positions;
    for first in (0..positions).step_by(STEP) {
        let keys = Keys {
            task,
            unit,
            first,
            count: (positions - first).min(STEP),
        };
        // SAFETY: the caller promises the instructions.
        unsafe {
            keys.score::<L, F, TILES, QUERIES>(&queries, &mut weights);
            for (query, weights) in queries.iter_mut().zip(&mut weights) {
                query.weigh::<L>(first, weights, task.shape.scale);
            }
            if F::SCALED {
                keys.scale::<L, QUERIES>(&mut weights);
            }
            keys.accumulate::<L, F, VECTORS, QUERIES>(&mut queries, &weights);
        }
    }
    for query in &mut queries {
        let l = query.l;
        query.acc.iter_mut().for_each(|acc| *acc /= l);
    }
}

/// One row's head, and how far its softmax has come.
struct Query<'a> {
    q: &'a [f32],
    /// That it sees, from 0.
    positions: usize,
    m: f32,
    l: f32,
    /// What the sums are multiplied with in this step.
    corr: f32,
    /// Its place in the output.
    acc: &'a mut [f32],
}

impl<'a> Query<'a> {
    #[inline(always)]
    fn new(task: &Task<'a>, unit: &Unit<'_>, index: usize) -> Query<'a> {
        let (row, head) = (
            index / unit.heads.len(),
            unit.heads.start + index % unit.heads.len(),
        );
        let (heads, head_dim) = (task.shape.heads, task.shape.head_dim);
        let positions = unit.sequence.start + row + 1;
        let row = unit.sequence.first_row + row;
        // SAFETY: the caller of `attend` promises that only this thread computes this query.
        let acc = unsafe { task.out.part((row * heads + head) * head_dim, head_dim) };
        acc.fill(0.0);
        let q = &task.qkv.row(row)[head * head_dim..][..head_dim];
        Query {
            q,
            positions,
            m: f32::NEG_INFINITY,
            l: 0.0,
            corr: 0.0,
            acc,
        }
    }

    /// How many of the positions from `first` on it sees.
    #[inline(always)]
    fn seen(&self, first: usize) -> usize {
        self.positions.saturating_sub(first).min(STEP)
    }

    /// Turns the scores of the positions from `first` on into weights; those of positions not seen become 0.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn weigh<L: Lanes>(&mut self, first: usize, scores: &mut [f32; STEP], scale: f32) {
        let seen = self.seen(first);
        let tiles = scores[..seen.next_multiple_of(TOKENS)]
            .as_chunks_mut::<TOKENS>()
            .0;
        // SAFETY: the caller promises the instructions; a tile has 16 values.
        unsafe {
            let mut most = L::splat(self.m);
            for (i, tile) in tiles.iter_mut().enumerate() {
                let scores = L::load(tile.as_ptr()).mul(L::splat(scale));
                let scores = scores.first((seen - i * TOKENS).min(TOKENS), L::splat(f32::NEG_INFINITY));
                scores.store(tile.as_mut_ptr());
                most = scores.max(most);
            }
            let m = greatest(most);
            let mut total = L::splat(0.0);
            for tile in tiles {
                let weights = exp(L::load(tile.as_ptr()).sub(L::splat(m)));
                weights.store(tile.as_mut_ptr());
                total = total.add(weights);
            }
            self.corr = crate::scalar::exp(self.m - m);
            self.l = self.l.mul_add(self.corr, sum(total));
            self.m = m;
        }
    }
}

/// The keys and values of one step.
struct Keys<'a, 'b> {
    task: &'a Task<'b>,
    unit: &'a Unit<'a>,
    first: usize,
    /// Positions that any query sees; at most [`STEP`].
    count: usize,
}

impl Keys<'_, '_> {
    /// `q · k` of every position, in whole tiles.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn score<L: Lanes, F: Form, const TILES: usize, const QUERIES: usize>(
        &self,
        queries: &[Query<'_>; QUERIES],
        scores: &mut [[f32; STEP]; QUERIES],
    ) {
        let tiles = self.count.div_ceil(TOKENS);
        let whole = tiles / TILES * TILES;
        for tile in (0..whole).step_by(TILES) {
            // SAFETY: passed on to the caller.
            unsafe { self.score_tiles::<L, F, TILES, QUERIES>(queries, tile, scores) };
        }
        for tile in whole..tiles {
            // SAFETY: passed on to the caller.
            unsafe { self.score_tiles::<L, F, 1, QUERIES>(queries, tile, scores) };
        }
    }

    #[inline(always)]
    unsafe fn score_tiles<L: Lanes, F: Form, const TILES: usize, const QUERIES: usize>(
        &self,
        queries: &[Query<'_>; QUERIES],
        tile: usize,
        scores: &mut [[f32; STEP]; QUERIES],
    ) {
        let head_dim = self.task.shape.head_dim;
        let keys: [*const u32; TILES] = std::array::from_fn(|i| self.keys((tile + i) * TOKENS).as_ptr());
        let q: [*const f32; QUERIES] = std::array::from_fn(|i| queries[i].q[..head_dim].as_ptr());
        // SAFETY: the caller promises the instructions; `d` is within the head, a tile within the step's scores.
        unsafe {
            let mut acc = [[L::splat(0.0); QUERIES]; TILES];
            let whole = head_dim - head_dim % F::PER_WORD;
            for d in (0..whole).step_by(F::PER_WORD) {
                for index in 0..F::PER_WORD {
                    add_dimension::<L, F, TILES, QUERIES>(keys, q, d, index, &mut acc);
                }
            }
            for index in 0..head_dim - whole {
                add_dimension::<L, F, TILES, QUERIES>(keys, q, whole, index, &mut acc);
            }
            for (t, acc) in acc.iter_mut().enumerate() {
                if F::SCALED {
                    let scales = L::load(self.scales((tile + t) * TOKENS, &self.task.pages.k_scales));
                    *acc = acc.map(|acc| acc.mul(scales));
                }
                for (acc, scores) in acc.iter().zip(scores.iter_mut()) {
                    acc.store(scores[(tile + t) * TOKENS..][..TOKENS].as_mut_ptr());
                }
            }
        }
    }

    /// Multiplies weights with the scales of their values, in whole tiles.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn scale<L: Lanes, const QUERIES: usize>(&self, weights: &mut [[f32; STEP]; QUERIES]) {
        for first in (0..self.count).step_by(TOKENS) {
            // SAFETY: the caller promises the instructions; a tile has 16 scales and weights.
            unsafe {
                let scales = L::load(self.scales(first, &self.task.pages.v_scales));
                for weights in weights.iter_mut() {
                    let tile = weights[first..][..TOKENS].as_mut_ptr();
                    L::load(tile).mul(scales).store(tile);
                }
            }
        }
    }

    /// Adds the weighted values to each query's sums.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn accumulate<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
        &self,
        queries: &mut [Query<'_>; QUERIES],
        weights: &[[f32; STEP]; QUERIES],
    ) {
        let vectors = self.task.shape.head_dim.div_ceil(L::COUNT);
        let whole = vectors / VECTORS * VECTORS;
        for vector in (0..whole).step_by(VECTORS) {
            // SAFETY: passed on to the caller.
            unsafe { self.accumulate_vectors::<L, F, VECTORS, QUERIES>(queries, weights, vector) };
        }
        for vector in whole..vectors {
            // SAFETY: passed on to the caller.
            unsafe { self.accumulate_vectors::<L, F, 1, QUERIES>(queries, weights, vector) };
        }
    }

    #[inline(always)]
    unsafe fn accumulate_vectors<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
        &self,
        queries: &mut [Query<'_>; QUERIES],
        weights: &[[f32; STEP]; QUERIES],
        vector: usize,
    ) {
        // Positions that all queries see; the first query is of the first row.
        let common = queries[0].seen(self.first);
        // SAFETY: passed on to the caller; positions are within the step, columns within the head.
        unsafe {
            let mut acc = [[L::splat(0.0); VECTORS]; QUERIES];
            for (acc, query) in acc.iter_mut().zip(queries.iter()) {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = load_column::<L>(query.acc, (vector + v) * L::COUNT).mul(L::splat(query.corr));
                }
            }
            self.add_values::<L, F, VECTORS, QUERIES>(weights, 0..common, vector, &mut acc);
            for (acc, query) in acc.iter().zip(queries.iter_mut()) {
                for (v, acc) in acc.iter().enumerate() {
                    store_column(*acc, query.acc, (vector + v) * L::COUNT);
                }
            }
            for v in vector..vector + VECTORS {
                self.accumulate_rest::<L, F, QUERIES>(queries, weights, common, v);
            }
        }
    }

    /// Adds the values of positions from `common` on, that only later rows see.
    #[inline(always)]
    unsafe fn accumulate_rest<L: Lanes, F: Form, const QUERIES: usize>(
        &self,
        queries: &mut [Query<'_>; QUERIES],
        weights: &[[f32; STEP]; QUERIES],
        common: usize,
        vector: usize,
    ) {
        for (query, weights) in queries.iter_mut().zip(weights) {
            let rest = common..query.seen(self.first);
            if rest.is_empty() {
                continue;
            }
            // SAFETY: passed on to the caller.
            unsafe {
                let mut acc = [[load_column::<L>(query.acc, vector * L::COUNT)]];
                self.add_values::<L, F, 1, 1>(std::array::from_ref(weights), rest, vector, &mut acc);
                store_column(acc[0][0], query.acc, vector * L::COUNT);
            }
        }
    }

    /// # Safety
    /// The CPU must have the instructions of `L`; `positions` (from the step's first) be within the step.
    #[inline(always)]
    unsafe fn add_values<L: Lanes, F: Form, const VECTORS: usize, const QUERIES: usize>(
        &self,
        weights: &[[f32; STEP]; QUERIES],
        mut positions: Range<usize>,
        vector: usize,
        acc: &mut [[L; VECTORS]; QUERIES],
    ) {
        let stride = self.task.pages.shape.v_stride();
        let mut sums = *acc;
        while !positions.is_empty() {
            let tile = self.values(positions.start).as_ptr();
            let tile_end = (positions.start + 1).next_multiple_of(TOKENS).min(positions.end);
            let mut t = positions.start;
            // SAFETY: the caller's promise; a tile has words of 16 values, `stride` of them for each position.
            unsafe {
                let word = |t: usize| tile.add(t % TOKENS / F::PER_WORD * stride + vector * L::COUNT);
                while t < tile_end && !t.is_multiple_of(F::PER_WORD) {
                    add_position::<L, F, VECTORS, QUERIES>(word(t), t % F::PER_WORD, weights, t, &mut sums);
                    t += 1;
                }
                while t + F::PER_WORD <= tile_end {
                    for index in 0..F::PER_WORD {
                        add_position::<L, F, VECTORS, QUERIES>(word(t), index, weights, t + index, &mut sums);
                    }
                    t += F::PER_WORD;
                }
                while t < tile_end {
                    add_position::<L, F, VECTORS, QUERIES>(word(t), t % F::PER_WORD, weights, t, &mut sums);
                    t += 1;
                }
            }
            positions.start = tile_end;
        }
        *acc = sums;
    }

    /// 16 keys, of which the first is at a multiple of 16 from the step's first.
    #[inline(always)]
    fn keys(&self, position: usize) -> &[u32] {
        let pages = self.task.pages;
        &pages.k[self.tile(position).k..][..pages.shape.k_tile()]
    }

    /// The 16 values around a position.
    #[inline(always)]
    fn values(&self, position: usize) -> &[u32] {
        let pages = self.task.pages;
        &pages.v[self.tile(position).v..][..pages.shape.v_tile()]
    }

    /// The scales of 16 keys or values, of which the first is at a multiple of 16 from the step's first.
    #[inline(always)]
    fn scales(&self, position: usize, scales: &[f32]) -> *const f32 {
        scales[self.tile(position).scales..][..TOKENS].as_ptr()
    }

    #[inline(always)]
    fn tile(&self, position: usize) -> TileAt {
        let (sequence, kv_head) = (self.unit.sequence, self.unit.kv_head);
        self.task
            .pages
            .shape
            .tile(sequence, self.first + position, kv_head)
    }
}

/// Adds one dimension's products to the scores of `TILES` tiles.
///
/// # Safety
/// The CPU must have the instructions of `L`; keys and queries have dimension `first + index`, where `first` begins a word.
#[inline(always)]
unsafe fn add_dimension<L: Lanes, F: Form, const TILES: usize, const QUERIES: usize>(
    keys: [*const u32; TILES],
    q: [*const f32; QUERIES],
    first: usize,
    index: usize,
    acc: &mut [[L; QUERIES]; TILES],
) {
    for (acc, keys) in acc.iter_mut().zip(keys) {
        // SAFETY: passed on to the caller.
        unsafe {
            let k: L = F::load(keys.add(first / F::PER_WORD * TOKENS), index);
            for (acc, q) in acc.iter_mut().zip(q) {
                *acc = L::splat(*q.add(first + index)).fma(k, *acc);
            }
        }
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
