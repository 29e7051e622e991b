//! Rows of activations rounded to bf16, as products with bf16 weights read them.

use crate::OpsError;
use crate::cpu::activations::TILE;
use crate::cpu::lanes::PairLanes;
use crate::cpu::shared::Shared;
use crate::memory::Memory;
use crate::scalar::{BLOCK, factor, factor_bf16};

/// Pairs of inputs per block.
pub const PAIRS: usize = BLOCK / 2;

/// Rows of whole blocks, the last one filled up with zeros, as the level's kernels want them (`Table::round_row`): each number
/// as f32, `[row][input]`; two numbers to a word, [crossed](cross), `[row][word]`; or in pairs, in tiles of [`TILE`] rows (the last may
/// have fewer), `[tile][block][row][pair]`.
pub struct Rounded {
    shape: Shape,
    words: Memory<u32>,
}

/// Of a row of so many inputs, as it is kept.
pub fn rounded_row_bytes(inputs: usize) -> usize {
    inputs.next_multiple_of(BLOCK) * size_of::<u32>()
}

impl Rounded {
    pub fn new() -> Result<Rounded, OpsError> {
        Ok(Rounded {
            shape: Shape { rows: 0, blocks: 0 },
            words: Memory::zeroed(0)?,
        })
    }

    /// Takes this shape; grows if need be. What it held is lost.
    pub fn resize(&mut self, rows: usize, inputs: usize) -> Result<(), OpsError> {
        let blocks = inputs.div_ceil(BLOCK);
        self.shape = Shape { rows, blocks };
        let words = rows * blocks * BLOCK;
        if words > self.words.len() {
            self.words = Memory::zeroed(words)?;
        }
        Ok(())
    }

    pub fn writer(&mut self) -> Writer<'_> {
        Writer {
            shape: self.shape,
            words: Shared::new(&mut self.words),
        }
    }

    pub fn blocks(&self) -> usize {
        self.shape.blocks
    }

    /// Of rows with so many words for each block: one after the other.
    #[inline(always)]
    pub fn rows(&self, row: usize, rows: usize, block_words: usize) -> &[u32] {
        let words = self.shape.blocks * block_words;
        &self.words[row * words..][..rows * words]
    }

    /// Of tiles: the one that begins with `row`.
    #[inline(always)]
    pub fn tile(&self, row: usize) -> &[u32] {
        let start = self.shape.tile_start(row);
        &self.words[start..][..self.shape.rows_in_tile(row) * self.shape.blocks * PAIRS]
    }
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    blocks: usize,
}

impl Shape {
    #[inline(always)]
    fn rows_in_tile(self, row: usize) -> usize {
        (self.rows - row / TILE * TILE).min(TILE)
    }

    #[inline(always)]
    fn tile_start(self, row: usize) -> usize {
        row / TILE * TILE * self.blocks * PAIRS
    }
}

/// Lets several threads round different rows.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    shape: Shape,
    words: Shared<'a, u32>,
}

/// Rounds `x`, which is row `row`, and leaves each number as f32.
///
/// # Safety
/// No other thread may be rounding the same row, all rows are rounded by this function, and the CPU must have what it is
/// compiled for.
#[inline(always)]
pub unsafe fn round_row_wide(writer: &Writer<'_>, row: usize, x: &[f32]) {
    let inputs = writer.shape.blocks * BLOCK;
    // SAFETY: a row's words are its own, and the caller promises to be alone with it.
    let words = unsafe { writer.words.part(row * inputs, inputs) };
    for (word, x) in words.iter_mut().zip(x) {
        *word = factor(*x).to_bits();
    }
    words[x.len()..].fill(0);
}

/// Rounds `x`, which is row `row`, and leaves it crossed.
///
/// # Safety
/// As [`round_row_wide`], and the CPU must have the instructions of `L`.
#[inline(always)]
pub unsafe fn round_row_crossed<L: PairLanes>(writer: &Writer<'_>, row: usize, x: &[f32]) {
    let words = writer.shape.blocks * PAIRS;
    // SAFETY: as in `round_row_wide`.
    let words = unsafe { writer.words.part(row * words, words) };
    let words = words.as_chunks_mut::<PAIRS>().0;
    let (whole, rest) = x.as_chunks::<BLOCK>();
    for (block, x) in whole.iter().enumerate() {
        // SAFETY: passed on to the caller.
        unsafe { L::cross(x, words[block].as_mut_ptr()) };
    }
    if !rest.is_empty() {
        let mut x = [0.0; BLOCK];
        x[..rest.len()].copy_from_slice(rest);
        // SAFETY: passed on to the caller.
        unsafe { L::cross(&x, words[whole.len()].as_mut_ptr()) };
    }
}

/// Rounds `x`, which is row `row`, into its place in a tile.
///
/// # Safety
/// As [`round_row_wide`].
#[inline(always)]
pub unsafe fn round_row_tiled(writer: &Writer<'_>, row: usize, x: &[f32]) {
    let (start, rows) = (writer.shape.tile_start(row), writer.shape.rows_in_tile(row));
    let place = |block: usize| start + (block * rows + row % TILE) * PAIRS;
    let (whole, rest) = x.as_chunks::<BLOCK>();
    for (block, x) in whole.iter().enumerate() {
        // SAFETY: as in `round_row_wide`.
        round_pairs(x, unsafe { writer.words.part(place(block), PAIRS) });
    }
    if !rest.is_empty() {
        let mut x = [0.0; BLOCK];
        x[..rest.len()].copy_from_slice(rest);
        // SAFETY: as in `round_row_wide`.
        round_pairs(&x, unsafe { writer.words.part(place(whole.len()), PAIRS) });
    }
}

/// The even inputs are the low halves.
#[inline(always)]
pub fn round_pairs(x: &[f32; BLOCK], words: &mut [u32]) {
    // A loop, which becomes vectors of the caller's level, as a closure given away does not.
    let mut halves = [0; BLOCK];
    for (half, x) in halves.iter_mut().zip(x) {
        *half = factor_bf16(*x);
    }
    for (word, [low, high]) in words.iter_mut().zip(halves.as_chunks::<2>().0) {
        *word = u32::from(*low) | u32::from(*high) << 16;
    }
}

/// In words of [`Pairing::Crossed`](crate::cpu::pairing::Pairing::Crossed).
#[inline(always)]
pub fn cross(x: &[f32; BLOCK]) -> [u32; PAIRS] {
    let mut bits = [0; BLOCK];
    for (bits, x) in bits.iter_mut().zip(x) {
        *bits = factor(*x).to_bits();
    }
    let mut words = [0; PAIRS];
    for (words, [a, b, c, d]) in words
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(bits.as_chunks::<4>().0)
    {
        *words = [a | c >> 16, b | d >> 16];
    }
    words
}
