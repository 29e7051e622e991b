//! Attention of many queries on a unit that multiplies tiles of bf16: the same numbers in the same order as by vectors.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::parts::{self, Part, Spare};
use super::products::Wide;
use super::{BLOCKS, Job, Keys, Query, Softmax, TILES_PER_BLOCK, Target, Task, Unit, correct, vectors};
use crate::cpu::activations::TILE;
use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::pair_tiles::{PairUnit, PlaceSums};
use crate::cpu::pages::{Form, TOKENS};
use crate::cpu::pairing::Pairing;
use crate::cpu::rounded::{PAIRS, round_pairs};
use crate::cpu::shared::Shared;
use crate::ops::HEAD_DIM_MAX;
use crate::reference::STEP;
use crate::scalar::BLOCK;
use crate::{AttentionShape, KvFormat};

/// Two tiles of them go past the same keys.
pub const QUERIES_MAX: usize = 2 * TILE;

/// 32 inputs of 16 rows, or of 16 outputs: words of two.
type Block = [u32; PAIRS * TILE];

/// How many of so many queries go together.
pub fn at_a_time(shape: &AttentionShape, queries: usize) -> usize {
    match pay(shape, queries) {
        true => QUERIES_MAX,
        false => vectors::QUERIES_MAX,
    }
}

/// Whether so many queries are computed faster than by vectors: of heads that come in whole blocks, as tiles do. Numbers of 8 bits
/// have to be spread first, which few queries do not pay for.
pub fn pay(shape: &AttentionShape, queries: usize) -> bool {
    let least = match shape.kv {
        KvFormat::Bf16 => 2,
        KvFormat::Int8 => vectors::QUERIES_MAX + 1,
    };
    queries >= least && shape.head_dim.is_multiple_of(BLOCK)
}

/// Computes one unit of up to [`QUERIES_MAX`] queries, by [`vectors::attend`] if tiles do not [`pay`].
///
/// # Safety
/// As [`vectors::attend`]; and the CPU must have the unit `U`, which this thread does not hold.
#[inline(always)]
pub unsafe fn attend<U: PairUnit, F: Form, const TILES: usize, const VECTORS: usize>(
    task: &Task<'_>,
    unit: &Unit<'_>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match pay(task.shape, unit.queries.len()) {
            true => attend_by_tiles::<U, F>(task, unit),
            false => vectors::attend::<Wide<U::Lanes, F>, TILES, VECTORS>(task, unit),
        }
    }
}

/// # Safety
/// As [`attend`], of heads in whole blocks.
#[inline(always)]
unsafe fn attend_by_tiles<U: PairUnit, F: Form>(task: &Task<'_>, unit: &Unit<'_>) {
    let queries = unit.queries.len();
    assert!(queries <= QUERIES_MAX && task.shape.head_dim.is_multiple_of(BLOCK));
    assert_eq!(
        task.pages.shape.pairing,
        Pairing::Neighbours,
        "the words of keys and values"
    );
    // SAFETY: passed on to the caller.
    unsafe {
        let (parts, target) = match &unit.job {
            Job::Attend(parts, target) => (parts, *target),
            Job::Join(kept) => return parts::join(task, unit, *kept),
        };
        let mut tiles = U::take(queries.min(TILE));
        match queries.div_ceil(TILE) {
            1 => attend_tiles::<U, F, 1>(&mut tiles, task, unit, parts, target),
            _ => attend_tiles::<U, F, 2>(&mut tiles, task, unit, parts, target),
        }
    }
}

/// What a unit's queries need room for. Of a second tile that is not full the other rows are zeros.
struct Room {
    /// `[tile][block][row][pair]`
    queries: [[Block; HEAD_DIM_MAX / BLOCK]; 2],
    /// Of two tiles of positions each.
    scores: [PlaceSums; BLOCKS],
    /// `[tile][block][row][pair]`
    weights: [[Block; BLOCKS]; 2],
    /// `[block][vector]` of two vectors of a value: `[pair][dimension]`
    values: [[Block; 2]; BLOCKS],
    /// Two tiles: `[pair][position]`
    keys: [Block; 2],
    sums: PlaceSums,
    /// Sums of a part.
    spare: [Spare; QUERIES_MAX * HEAD_DIM_MAX],
}

#[inline(always)]
unsafe fn attend_tiles<U: PairUnit, F: Form, const TILES: usize>(
    tiles: &mut U,
    task: &Task<'_>,
    unit: &Unit<'_>,
    parts: &Range<usize>,
    target: Target,
) {
    // What is read of it was written before.
    let mut room = MaybeUninit::<Room>::uninit();
    let room = room.as_mut_ptr();
    let mut totals = [Softmax::NOTHING; QUERIES_MAX];
    let mut queries = [Query::NONE; QUERIES_MAX];
    let queries = &mut queries[..unit.queries.len()];
    for (index, query) in queries.iter_mut().enumerate() {
        *query = Query::new(task, unit, index);
    }
    // SAFETY: passed on to the caller; these queries, or parts of them, are this thread's alone.
    unsafe {
        if TILES == 2 && queries.len() < QUERIES_MAX {
            (&raw mut (*room).queries[1]).write_bytes(0, 1);
            (&raw mut (*room).weights[1]).write_bytes(0, 1);
        }
        round_queries(task, queries, &raw mut (*room).queries);
        for part in Part::each(task, unit, parts) {
            let sums = part.place(task, target, queries, &mut (*room).spare);
            let softmax = walk::<U, F, TILES>(tiles, task, unit, &part, queries, sums, room);
            part.take(task, target, queries, sums, &softmax, &mut totals);
        }
        parts::finish(task, target, queries, &totals);
    }
}

/// Walks the steps of a part from nothing, and adds to each query's place in `sums`.
///
/// # Safety
/// This thread holds the unit; the room has the queries, whose places are this thread's alone.
#[inline(always)]
unsafe fn walk<U: PairUnit, F: Form, const TILES: usize>(
    tiles: &mut U,
    task: &Task<'_>,
    unit: &Unit<'_>,
    part: &Part,
    queries: &[Query],
    sums: Shared<'_, f32>,
    room: *mut Room,
) -> [Softmax; QUERIES_MAX] {
    let mut softmax = [Softmax::NOTHING; QUERIES_MAX];
    for first in part.positions.clone().step_by(STEP) {
        let keys = Keys::step(task, unit, part, first);
        // SAFETY: passed on to the caller.
        unsafe {
            keys.score_blocks::<U, F, TILES>(tiles, room);
            for (row, query) in queries.iter().enumerate() {
                keys.weigh_row::<U, F>(row, query.seen(keys.first), &mut softmax[row], room);
            }
            keys.add_values::<U, F, TILES>(tiles, queries, &softmax, sums, room);
        }
    }
    softmax
}

/// # Safety
/// There is room.
#[inline(always)]
unsafe fn round_queries(task: &Task<'_>, queries: &[Query], room: *mut [[Block; HEAD_DIM_MAX / BLOCK]; 2]) {
    for (row, query) in queries.iter().enumerate() {
        for (block, numbers) in query.numbers(task).as_chunks::<BLOCK>().0.iter().enumerate() {
            // SAFETY: the caller's promise; a head has at most `HEAD_DIM_MAX` dimensions.
            let block = unsafe { &mut (*room)[row / TILE][block] };
            round_pairs(numbers, &mut block.as_chunks_mut::<PAIRS>().0[row % TILE]);
        }
    }
}

impl Keys<'_, '_> {
    /// `q · k` of every position, two tiles of positions at a time.
    ///
    /// # Safety
    /// This thread holds the unit; the room has the queries.
    #[inline(always)]
    unsafe fn score_blocks<U: PairUnit, F: Form, const TILES: usize>(&self, tiles: &mut U, room: *mut Room) {
        for pair in 0..self.tiles().div_ceil(TILES_PER_BLOCK) {
            let first = pair * TILES_PER_BLOCK;
            // One without a neighbour is its own.
            let second = (first + 1).min(self.tiles() - 1);
            let keys = [self.keys(first).as_ptr(), self.keys(second).as_ptr()];
            // SAFETY: the caller's promise; a tile of keys has all blocks of a head.
            unsafe {
                tiles.clear();
                for block in 0..self.task.shape.head_dim / BLOCK {
                    let x: [*const u32; TILES] =
                        std::array::from_fn(|tile| (&raw const (*room).queries[tile][block]).cast());
                    // Without closures: what they are given to has not the instructions.
                    let first = keys[0].add(block * BLOCK / F::PER_WORD * TOKENS);
                    let second = keys[1].add(block * BLOCK / F::PER_WORD * TOKENS);
                    let keys = [
                        F::key_pairs::<U::Lanes>(first, &raw mut (*room).keys[0]),
                        F::key_pairs::<U::Lanes>(second, &raw mut (*room).keys[1]),
                    ];
                    tiles.multiply::<TILES>(x, keys);
                }
                tiles.store::<TILES>(&raw mut (*room).scores[pair]);
            }
        }
    }

    /// Makes weights in bf16 of a query's scores.
    ///
    /// # Safety
    /// The CPU must have the instructions of `U`; the room has the scores.
    #[inline(always)]
    unsafe fn weigh_row<U: PairUnit, F: Form>(
        &self,
        row: usize,
        seen: usize,
        softmax: &mut Softmax,
        room: *mut Room,
    ) {
        let (tile, row) = (row / TILE, row % TILE);
        let mut weights = [0.0; STEP];
        // SAFETY: the caller's promise.
        unsafe {
            let of_tiles = weights.as_chunks_mut::<TOKENS>().0;
            for (place, scores) in of_tiles[..self.tiles()].iter_mut().enumerate() {
                *scores = (*room).scores[place / 2][tile][place % 2].0[row];
                if F::SCALED {
                    self.scale::<U::Lanes>(place, &self.task.pages.k_scales, scores);
                }
            }
            let m = softmax.greatest_scaled::<U::Lanes>(seen, &mut weights, self.task.shape.scale);
            correct::<U::Lanes, 1>(std::array::from_mut(softmax), &[m]);
            softmax.weigh::<U::Lanes>(seen, &mut weights, m);
            if F::SCALED {
                let of_tiles = weights.as_chunks_mut::<TOKENS>().0;
                for (place, weights) in of_tiles[..self.tiles()].iter_mut().enumerate() {
                    self.scale::<U::Lanes>(place, &self.task.pages.v_scales, weights);
                }
                // Scales behind them may be another sequence's, and no numbers.
                weights[seen..].fill(0.0);
            }
            let blocks = weights.as_chunks::<BLOCK>().0;
            for (block, weights) in blocks[..self.tiles().div_ceil(TILES_PER_BLOCK)]
                .iter()
                .enumerate()
            {
                let words = &mut (*room).weights[tile][block].as_chunks_mut::<PAIRS>().0[row];
                round_pairs(weights, words);
            }
        }
    }

    /// Adds the weighted values to each query's sums, 32 dimensions at a time.
    ///
    /// # Safety
    /// This thread holds the unit; the room has the weights, and each query its place in `sums`, which is this thread's alone.
    #[inline(always)]
    unsafe fn add_values<U: PairUnit, F: Form, const TILES: usize>(
        &self,
        tiles: &mut U,
        queries: &[Query],
        softmax: &[Softmax; QUERIES_MAX],
        sums: Shared<'_, f32>,
        room: *mut Room,
    ) {
        let head_dim = self.task.shape.head_dim;
        let blocks = self.tiles().div_ceil(TILES_PER_BLOCK);
        for first in (0..head_dim).step_by(2 * TILE) {
            // SAFETY: the caller's promise; blocks are within the step, dimensions within the head.
            unsafe {
                for block in 0..blocks {
                    self.take_values::<U::Lanes, F>(block, first, &raw mut (*room).values[block]);
                }
                tiles.clear();
                for block in 0..blocks {
                    let x: [*const u32; TILES] =
                        std::array::from_fn(|tile| (&raw const (*room).weights[tile][block]).cast());
                    let [first, second] = &(*room).values[block];
                    let values = [first.as_ptr(), second.as_ptr()];
                    tiles.multiply::<TILES>(x, values);
                }
                tiles.store::<TILES>(&raw mut (*room).sums);
                for (row, query) in queries.iter().enumerate() {
                    if query.seen(self.first) == 0 {
                        continue;
                    }
                    let step = &(*room).sums[row / TILE];
                    let corr = U::Lanes::splat(softmax[row].corr);
                    let sums = &mut query.sums(sums, head_dim)[first..][..2 * TILE];
                    for (v, sums) in sums.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                        let step = U::Lanes::load(step[v].0[row % TILE].as_ptr());
                        let sum = U::Lanes::load(sums.as_ptr());
                        sum.fma(corr, step).store(sums.as_mut_ptr());
                    }
                }
            }
        }
    }

    /// 32 dimensions of a block of positions; of those that no query sees zeros, since what is there may be of another sequence, and
    /// no number.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`; there is room.
    #[inline(always)]
    unsafe fn take_values<L: Lanes, F: Form>(&self, block: usize, first: usize, room: *mut [Block; 2]) {
        let stride = self.task.pages.shape.v_stride();
        let tiles = block * TILES_PER_BLOCK..self.tiles().min((block + 1) * TILES_PER_BLOCK);
        // SAFETY: the caller's promise; a tile has words of 16 values, `stride` of them for each position.
        unsafe {
            for (half, tile) in tiles.enumerate() {
                let values = self.values(tile).as_ptr().add(first);
                for pair in 0..TOKENS / 2 {
                    let (word, index) = (2 * pair / F::PER_WORD, 2 * pair % F::PER_WORD);
                    for v in 0..2 {
                        let room = &mut (*room)[v].as_chunks_mut::<TILE>().0[half * TOKENS / 2 + pair];
                        *room = F::pairs::<L>(values.add(word * stride + v * TILE), index);
                    }
                }
            }
            let seen = self.count - block * BLOCK;
            if seen < BLOCK {
                for room in &mut *room {
                    let (pairs, unseen) = room.split_at_mut(seen.div_ceil(2) * TILE);
                    unseen.fill(0);
                    if !seen.is_multiple_of(2) {
                        let last = pairs.len() - TILE;
                        pairs[last..].iter_mut().for_each(|pair| *pair &= 0xffff);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::attention::parts::{Kept, kept_len};
    use crate::cpu::attention::products::Crossed;
    use crate::cpu::isa::scalar::Scalar;
    use crate::cpu::matmul::pair_tiles::loops::Loops;
    use crate::cpu::pages::{Bf16, Int8, Pages};
    use crate::reference::PART;
    use crate::tensor::Tensor;
    use crate::{Batch, Ops, Reference, SequenceRows};

    const HEADS: usize = 3;
    const ALL: usize = usize::MAX;

    type Attend = unsafe fn(&Task<'_>, &Unit<'_>);
    /// With the words that it reads.
    type Way = (Attend, Pairing);

    /// How work is cut into units.
    #[derive(Clone, Copy, Debug)]
    struct Cut {
        queries: usize,
        /// Parts that are kept by one unit; all of them are joined at once.
        parts: usize,
    }

    /// A sequence of which the last rows attend.
    struct Scene {
        shape: AttentionShape,
        /// Of all positions: queries, a key and a value side by side.
        qkv: Tensor,
        all: SequenceRows,
        last: SequenceRows,
    }

    impl Scene {
        fn new(shape: AttentionShape, start: usize, rows: usize) -> Scene {
            let positions = start + rows;
            let number = |i: usize| ((i * 7919) % 1009) as f32 * 0.004 - 2.0;
            let qkv = Tensor::of(positions, (HEADS + 2) * shape.head_dim, |row, column| {
                number(row * 31 + column * 3)
            });
            let all = SequenceRows {
                first_row: 0,
                rows: positions,
                start: 0,
                blocks: (0..positions.div_ceil(shape.block_tokens) as u32).rev().collect(),
            };
            let last = SequenceRows {
                first_row: start,
                rows,
                start,
                blocks: all.blocks.clone(),
            };
            Scene {
                shape,
                qkv,
                all,
                last,
            }
        }

        fn out(&self) -> Tensor {
            Tensor::of(self.qkv.rows(), HEADS * self.shape.head_dim, |_, _| 0.0)
        }

        fn expected(&self) -> Vec<u32> {
            let batch = |sequence: &SequenceRows| Batch {
                sequences: vec![sequence.clone()],
            };
            let (shape, head_dim) = (&self.shape, self.shape.head_dim);
            let mut pages = Reference.pages(shape, self.all.blocks.len()).unwrap();
            let [k, v] = [HEADS * head_dim, (HEADS + 1) * head_dim];
            Reference.append_kv(shape, &batch(&self.all), &self.qkv, k, v, &mut pages);
            let mut out = self.out();
            Reference.attention(shape, &batch(&self.last), &self.qkv, &pages, &mut out);
            bits(&out)
        }

        fn found(&self, (attend, pairing): Way, cut: Cut) -> Vec<u32> {
            let (queries, parts) = (self.last.rows * HEADS, self.all.rows.div_ceil(PART));
            let kept = Kept { first: 16, parts };
            let mut room = vec![f32::NAN; kept.first + queries * parts * kept_len(self.shape.head_dim)];
            let (pages, mut out) = (self.pages(pairing), self.out());
            let task = Task {
                shape: &self.shape,
                qkv: &self.qkv,
                pages: &pages,
                out: Shared::new(out.values_mut()),
                kept: Shared::new(&mut room),
            };
            let each = |job: Job, at_a_time: usize| {
                for first in (0..queries).step_by(at_a_time) {
                    let unit = Unit {
                        sequence: &self.last,
                        kv_head: 0,
                        heads: 0..HEADS,
                        queries: first..(first + at_a_time).min(queries),
                        job: job.clone(),
                    };
                    // SAFETY: one thread; scalar lanes need nothing.
                    unsafe { attend(&task, &unit) };
                }
            };
            if cut.parts >= parts {
                each(Job::Attend(0..parts, Target::Output), cut.queries);
            } else {
                // The last ones first: no order may matter.
                for first in (0..parts).step_by(cut.parts).rev() {
                    let run = first..parts.min(first + cut.parts);
                    each(Job::Attend(run, Target::Kept(kept)), cut.queries);
                }
                each(Job::Join(kept), 1);
            }
            bits(&out)
        }

        fn pages(&self, pairing: Pairing) -> Pages {
            let mut pages = Pages::new(&self.shape, pairing, self.all.blocks.len()).unwrap();
            let head_dim = self.shape.head_dim;
            // What is behind the last position may be another sequence's, and no numbers.
            let stale = vec![f32::NAN; head_dim];
            for position in 0..self.all.blocks.len() * self.shape.block_tokens {
                // SAFETY: one thread.
                unsafe { pages.writer().put(&self.all, position, 0, &stale, &stale) };
            }
            for position in 0..self.all.rows {
                let (k, v) = self.qkv.row(position)[HEADS * head_dim..].split_at(head_dim);
                // SAFETY: one thread.
                unsafe { pages.writer().put(&self.all, position, 0, k, v) };
            }
            pages
        }
    }

    fn shape(head_dim: usize, kv: KvFormat) -> AttentionShape {
        AttentionShape {
            heads: HEADS,
            kv_heads: 1,
            heads_per_kv: HEADS,
            first_head_in_group: 0,
            head_dim,
            block_tokens: 16,
            scale: 0.1,
            kv,
        }
    }

    fn bits(out: &Tensor) -> Vec<u32> {
        out.values().iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn tiles_and_vectors_have_the_bits_of_the_reference() {
        for kv in [KvFormat::Bf16, KvFormat::Int8] {
            let [tiles, vectors, crossed]: [Way; 3] = match kv {
                KvFormat::Bf16 => [
                    (attend_by_tiles::<Loops, Bf16>, Pairing::Neighbours),
                    (vectors::attend::<Wide<Scalar, Bf16>, 1, 1>, Pairing::Neighbours),
                    (vectors::attend::<Crossed<Scalar>, 2, 2>, Pairing::Crossed),
                ],
                KvFormat::Int8 => [
                    (attend_by_tiles::<Loops, Int8>, Pairing::Neighbours),
                    (vectors::attend::<Wide<Scalar, Int8>, 1, 1>, Pairing::Crossed),
                    (vectors::attend::<Wide<Scalar, Int8>, 2, 2>, Pairing::Crossed),
                ],
            };
            let cuts = [
                (tiles, QUERIES_MAX, ALL),
                (tiles, QUERIES_MAX, 1),
                (tiles, TILE, 2),
                (vectors, vectors::QUERIES_MAX, ALL),
                (vectors, vectors::QUERIES_MAX, 1),
                (vectors, 1, 2),
                (crossed, vectors::QUERIES_MAX, ALL),
                (crossed, 1, 1),
            ];
            // Units of one tile and of two, full or not; steps and parts of which some rows see nothing.
            let short = [(0, 1), (0, 5), (15, 6), (0, 11), (120, 20), (300, 2)];
            let long = [(511, 1), (507, 11), (512, 2), (1000, 30), (1536, 1)];
            for (start, rows) in short.into_iter().chain(long) {
                for head_dim in [32, 64, 96] {
                    let scene = Scene::new(shape(head_dim, kv), start, rows);
                    let expected = scene.expected();
                    for (way, queries, parts) in cuts {
                        let cut = Cut { queries, parts };
                        assert_eq!(
                            scene.found(way, cut),
                            expected,
                            "{kv:?}, {head_dim} dimensions, {rows} rows from {start}, {cut:?}"
                        );
                    }
                }
            }
        }
    }

    /// Of which tiles know nothing: no whole blocks, no whole vectors, no whole words.
    #[test]
    fn other_heads_have_the_bits_of_the_reference_by_vectors() {
        let ways: [Way; 2] = [
            (vectors::attend::<Wide<Scalar, Bf16>, 2, 2>, Pairing::Neighbours),
            (vectors::attend_crossed::<Scalar, 2, 2>, Pairing::Crossed),
        ];
        for head_dim in [8, 20, 21, 22, 23, 80] {
            for (start, rows) in [(0, 1), (17, 3), (509, 6)] {
                let scene = Scene::new(shape(head_dim, KvFormat::Bf16), start, rows);
                let cut = Cut {
                    queries: vectors::QUERIES_MAX,
                    parts: 1,
                };
                for way in ways {
                    let found = scene.found(way, cut);
                    assert_eq!(
                        found,
                        scene.expected(),
                        "{head_dim} dimensions, {rows} rows from {start}"
                    );
                }
            }
        }
    }
}
