//! Attention over paged keys and values. The exact arithmetic is in [`crate::reference`].
//!
//! A unit of work are queries (pairs of row and head) that share a sequence and a KV head, so that each key and value is read
//! once for all of them: few at a time by [`vectors`], many by [`tiles`] where there is a unit for them. Both give the same
//! bits. Where there are too few units for a team, [`agenda`] divides them by [`parts`] of the context.

pub mod agenda;
pub mod parts;
pub mod products;
pub mod tiles;
pub mod vectors;

use std::ops::Range;

use crate::AttentionShape;
use crate::cpu::lanes::{Lanes, exp, to_array};
use crate::cpu::pages::{Form, Pages, TOKENS, TileAt};
use crate::cpu::prefetch;
use crate::cpu::shared::Shared;
use crate::ops::SequenceRows;
use crate::reference::STEP;
use crate::scalar::BLOCK;
use crate::tensor::Tensor;
use parts::{Kept, Part, Target};

/// The operands of one call.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub shape: &'a AttentionShape,
    pub qkv: &'a Tensor,
    pub pages: &'a Pages,
    /// `(rows, heads · head_dim)`
    pub out: Shared<'a, f32>,
    /// Room for what [`Kept`] says.
    pub kept: Shared<'a, f32>,
}

/// Queries that share keys.
#[derive(Clone)]
pub struct Unit<'a> {
    pub sequence: &'a SequenceRows,
    pub kv_head: usize,
    /// The query heads of `kv_head`.
    pub heads: Range<usize>,
    /// Among the sequence's rows times `heads`, row by row.
    pub queries: Range<usize>,
    pub job: Job,
}

/// What is done for the queries of a unit.
#[derive(Clone, PartialEq, Debug)]
pub enum Job {
    /// They attend to these parts, as far as they see them.
    Attend(Range<usize>, Target),
    /// What was kept of all parts is joined.
    Join(Kept),
}

/// What is known of each query of a unit before it is computed.
#[derive(Clone, Copy)]
struct Query {
    /// That it sees, from 0.
    positions: usize,
    /// Among those of its sequence and KV head.
    index: usize,
    /// Where it is in `qkv`.
    row: usize,
    column: usize,
    /// Where its sums of a part are, once that is known.
    place: usize,
}

impl Query {
    const NONE: Query = Query {
        positions: 0,
        index: 0,
        row: 0,
        column: 0,
        place: 0,
    };

    #[inline(always)]
    fn new(task: &Task<'_>, unit: &Unit<'_>, index: usize) -> Query {
        let index = unit.queries.start + index;
        let (row, head) = (
            index / unit.heads.len(),
            unit.heads.start + index % unit.heads.len(),
        );
        Query {
            positions: unit.sequence.start + row + 1,
            index,
            row: unit.sequence.first_row + row,
            column: head * task.shape.head_dim,
            place: 0,
        }
    }

    /// Where it is in the output.
    #[inline(always)]
    fn output(self, task: &Task<'_>) -> usize {
        self.row * task.shape.heads * task.shape.head_dim + self.column
    }

    #[inline(always)]
    fn numbers<'a>(self, task: &Task<'a>) -> &'a [f32] {
        &task.qkv.row(self.row)[self.column..][..task.shape.head_dim]
    }

    /// How many of the positions from `first` on it sees in one step.
    #[inline(always)]
    fn seen(self, first: usize) -> usize {
        self.positions.saturating_sub(first).min(STEP)
    }

    /// # Safety
    /// No two of one place may be in use at a time.
    #[inline(always)]
    unsafe fn sums<'a>(self, all: Shared<'a, f32>, head_dim: usize) -> &'a mut [f32] {
        // SAFETY: passed on to the caller.
        unsafe { all.part(self.place, head_dim) }
    }
}

/// How far a query's softmax has come.
#[derive(Clone, Copy)]
struct Softmax {
    m: f32,
    l: f32,
    /// What the sums are multiplied with in this step.
    corr: f32,
}

impl Softmax {
    const NOTHING: Softmax = Softmax {
        m: f32::NEG_INFINITY,
        l: 0.0,
        corr: 0.0,
    };

    /// Scales the scores of a step, of which the first `seen` count; others in the last tile become minus infinity. The greatest of them
    /// and all before.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn greatest_scaled<L: Lanes>(&self, seen: usize, scores: &mut [f32; STEP], scale: f32) -> f32 {
        let whole = seen / TOKENS;
        let tiles = scores.as_chunks_mut::<TOKENS>().0;
        // SAFETY: the caller promises the instructions; a tile has 16 values.
        unsafe {
            let mut most = L::splat(self.m);
            for tile in &mut tiles[..whole] {
                let scores = L::load(tile.as_ptr()).mul(L::splat(scale));
                scores.store(tile.as_mut_ptr());
                most = scores.max(most);
            }
            if !seen.is_multiple_of(TOKENS) {
                let tile = &mut tiles[whole];
                let scores = L::load(tile.as_ptr()).mul(L::splat(scale));
                let scores = scores.first(seen % TOKENS, L::splat(f32::NEG_INFINITY));
                scores.store(tile.as_mut_ptr());
                most = scores.max(most);
            }
            most.greatest()
        }
    }

    /// Turns scores as [`greatest_scaled`](Self::greatest_scaled) has left them, and `m` is what it has found, into weights; those that do not
    /// count become 0. [`correct`] has seen `m`.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn weigh<L: Lanes>(&mut self, seen: usize, scores: &mut [f32; STEP], m: f32) {
        let (tiles, unseen) = scores.split_at_mut(seen.next_multiple_of(TOKENS));
        unseen.fill(0.0);
        // SAFETY: the caller promises the instructions; a tile has 16 values.
        unsafe {
            let mut total = L::splat(0.0);
            for tile in tiles.as_chunks_mut::<TOKENS>().0 {
                let weights = exp(L::load(tile.as_ptr()).sub(L::splat(m)));
                weights.store(tile.as_mut_ptr());
                total = total.add(weights);
            }
            self.l = self.l.mul_add(self.corr, total.sum());
            self.m = m;
        }
    }
}

/// Finds what sums so far are multiplied with, now that the greatest score of each query is `m`. Of several queries at once, since one alone is
/// long in coming.
///
/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
unsafe fn correct<L: Lanes, const QUERIES: usize>(softmax: &mut [Softmax; QUERIES], m: &[f32; QUERIES]) {
    const { assert!(QUERIES <= 16) };
    let mut lanes = [0.0; 16];
    for (lane, (softmax, m)) in lanes.iter_mut().zip(softmax.iter().zip(m)) {
        *lane = softmax.m - m;
    }
    // SAFETY: the caller promises the instructions.
    let lanes = to_array(unsafe { exp(L::load(lanes.as_ptr())) });
    for (softmax, corr) in softmax.iter_mut().zip(lanes) {
        softmax.corr = corr;
    }
}

/// The keys and values of one step.
struct Keys<'a, 'b> {
    task: &'a Task<'b>,
    unit: &'a Unit<'a>,
    first: usize,
    /// Positions that any query sees; at most [`STEP`].
    count: usize,
    /// Where the last step of this unit ends.
    end: usize,
    /// Tiles of the pages before each of its own.
    before: [usize; STEP / TOKENS],
}

impl<'a, 'b> Keys<'a, 'b> {
    /// From a position of a part on.
    #[inline(always)]
    fn step(task: &'a Task<'b>, unit: &'a Unit<'a>, part: &Part, first: usize) -> Keys<'a, 'b> {
        let mut keys = Keys {
            task,
            unit,
            first,
            count: (part.positions.end - first).min(STEP),
            end: part.unit_end,
            before: [0; STEP / TOKENS],
        };
        for tile in 0..keys.tiles() {
            keys.before[tile] = keys.before(first + tile * TOKENS);
        }
        keys
    }

    /// Tiles of 16 positions.
    #[inline(always)]
    fn tiles(&self) -> usize {
        self.count.div_ceil(TOKENS)
    }

    /// The `tile`-th 16 keys.
    #[inline(always)]
    fn keys(&self, tile: usize) -> &[u32] {
        let pages = self.task.pages;
        &pages.k[self.at(tile).k..][..pages.shape.k_tile()]
    }

    /// The `tile`-th 16 values.
    #[inline(always)]
    fn values(&self, tile: usize) -> &[u32] {
        let pages = self.task.pages;
        &pages.v[self.at(tile).v..][..pages.shape.v_tile()]
    }

    /// Whether what these queries read comes from memory. Those behind them find it near.
    #[inline(always)]
    fn are_first(&self) -> bool {
        self.unit.queries.start == 0
    }

    /// Starts fetching the `tile`-th 16 values, while keys are read.
    // Inlined, it would cost the loops around it registers, also of queries that ask for nothing.
    #[inline(never)]
    fn ask_for_values<F: Form>(&self, tile: usize) {
        let (pages, at) = (self.task.pages, self.at(tile));
        ask_for(&pages.v[at.v..][..pages.shape.v_tile()]);
        if F::SCALED {
            ask_for(&pages.v_scales[at.scales..][..TOKENS]);
        }
    }

    /// Starts fetching the `tile`-th 16 keys of the next step, while values are read.
    #[inline(never)]
    fn ask_for_next_keys<F: Form>(&self, tile: usize) {
        let position = self.first + STEP + tile * TOKENS;
        if position < self.end {
            let (pages, at) = (self.task.pages, self.task.pages.shape.at(self.before(position)));
            ask_for(&pages.k[at.k..][..pages.shape.k_tile()]);
            if F::SCALED {
                ask_for(&pages.k_scales[at.scales..][..TOKENS]);
            }
        }
    }

    /// Multiplies the `tile`-th 16 numbers with the scales of their keys or values.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`.
    #[inline(always)]
    unsafe fn scale<L: Lanes>(&self, tile: usize, scales: &[f32], numbers: &mut [f32; TOKENS]) {
        let scales: &[f32] = &scales[self.at(tile).scales..][..TOKENS];
        // SAFETY: the caller promises the instructions; both have 16 numbers.
        unsafe {
            let scaled = L::load(numbers.as_ptr()).mul(L::load(scales.as_ptr()));
            scaled.store(numbers.as_mut_ptr());
        }
    }

    #[inline(always)]
    fn at(&self, tile: usize) -> TileAt {
        self.task.pages.shape.at(self.before[..self.tiles()][tile])
    }

    /// Tiles before that of a position.
    #[inline(always)]
    fn before(&self, position: usize) -> usize {
        let (sequence, kv_head) = (self.unit.sequence, self.unit.kv_head);
        self.task.pages.shape.before(sequence, position, kv_head)
    }
}

#[inline(always)]
fn ask_for<T>(numbers: &[T]) {
    prefetch::far(numbers.as_ptr().cast(), size_of_val(numbers));
}

/// Tiles of positions whose values are added up before they are added to others, as with the dimensions of a key.
const TILES_PER_BLOCK: usize = BLOCK / TOKENS;

/// Blocks of a step.
const BLOCKS: usize = STEP / BLOCK;
