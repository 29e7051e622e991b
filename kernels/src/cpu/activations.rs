//! Quantised rows of activations, as the kernels read them.

use std::ops::Range;

use crate::cpu::shared::Shared;
use crate::memory::Memory;
use crate::scalar::{BLOCK, FINE_STEPS, activation_scale, magnitude_max, to_int8, to_two_terms};
use crate::{InputPrecision, OpsError};

/// Rows that a kernel takes together.
pub const TILE: usize = 16;

/// Rows in tiles of [`TILE`] (the last may have fewer), each tile contiguous: `[tile][block][row]`.
pub struct Activations {
    shape: Shape,
    /// 32 of each term: of two terms all coarse ones of a block come before the fine ones.
    q: Memory<i8>,
    /// The step that the last term counts, as `Σq` below does.
    d: Memory<f32>,
    /// `d · Σq`
    offset: Memory<f32>,
    /// `−8 · Σq`: what is to be added where weights stand 8 above their value.
    origin: Memory<i32>,
    /// Of the first 16 of each 32 alone.
    first_origin: Memory<i32>,
}

/// Of a row of so many inputs, as it is kept.
pub fn row_bytes(inputs: usize, precision: InputPrecision) -> usize {
    let (scales, origins) = (2 * size_of::<f32>(), 2 * size_of::<i32>());
    inputs * precision.terms() + inputs / BLOCK * (scales + origins)
}

impl Activations {
    pub fn new() -> Result<Activations, OpsError> {
        Ok(Activations {
            shape: Shape {
                rows: 0,
                blocks: 0,
                precision: InputPrecision::OneTerm,
            },
            q: Memory::zeroed(0)?,
            d: Memory::zeroed(0)?,
            offset: Memory::zeroed(0)?,
            origin: Memory::zeroed(0)?,
            first_origin: Memory::zeroed(0)?,
        })
    }

    /// Takes this shape; grows if need be. What it held is lost.
    pub fn resize(&mut self, rows: usize, inputs: usize, precision: InputPrecision) -> Result<(), OpsError> {
        self.shape = Shape {
            rows,
            blocks: inputs / BLOCK,
            precision,
        };
        let blocks = rows * self.shape.blocks;
        if blocks * self.shape.block_bytes() > self.q.len() {
            self.q = Memory::zeroed(blocks * self.shape.block_bytes())?;
        }
        if blocks > self.d.len() {
            (self.d, self.offset) = (Memory::zeroed(blocks)?, Memory::zeroed(blocks)?);
            (self.origin, self.first_origin) = (Memory::zeroed(blocks)?, Memory::zeroed(blocks)?);
        }
        Ok(())
    }

    pub fn precision(&self) -> InputPrecision {
        self.shape.precision
    }

    pub fn writer(&mut self) -> Writer<'_> {
        Writer {
            shape: self.shape,
            q: Shared::new(&mut self.q),
            d: Shared::new(&mut self.d),
            offset: Shared::new(&mut self.offset),
            origin: Shared::new(&mut self.origin),
            first_origin: Shared::new(&mut self.first_origin),
        }
    }

    /// `rows` begins at a tile and ends within it.
    #[inline(always)]
    pub fn tile(&self, rows: Range<usize>) -> Tile<'_> {
        let shape = self.shape;
        let start = shape.index(rows.start, 0);
        let blocks = start..start + shape.rows_in_tile(rows.start) * shape.blocks;
        assert!(
            rows.len() == shape.rows_in_tile(rows.start),
            "rows {rows:?} are no tile"
        );
        Tile {
            rows: rows.len(),
            q: &self.q[blocks.start * shape.block_bytes()..blocks.end * shape.block_bytes()],
            d: &self.d[blocks.clone()],
            offset: &self.offset[blocks.clone()],
            origin: &self.origin[blocks.clone()],
            first_origin: &self.first_origin[blocks],
        }
    }
}

/// One tile: each slice is `[block][row]`.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    pub rows: usize,
    /// `[block][row][term]` of 32 each.
    pub q: &'a [i8],
    pub d: &'a [f32],
    pub offset: &'a [f32],
    pub origin: &'a [i32],
    pub first_origin: &'a [i32],
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    blocks: usize,
    precision: InputPrecision,
}

impl Shape {
    #[inline(always)]
    fn rows_in_tile(self, row: usize) -> usize {
        (self.rows - row / TILE * TILE).min(TILE)
    }

    /// Of a row's block among all blocks.
    #[inline(always)]
    fn index(self, row: usize, block: usize) -> usize {
        row / TILE * TILE * self.blocks + block * self.rows_in_tile(row) + row % TILE
    }

    /// Of `q`.
    #[inline(always)]
    fn block_bytes(self) -> usize {
        BLOCK * self.precision.terms()
    }
}

/// Lets several threads quantise different rows.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    shape: Shape,
    q: Shared<'a, i8>,
    d: Shared<'a, f32>,
    offset: Shared<'a, f32>,
    origin: Shared<'a, i32>,
    first_origin: Shared<'a, i32>,
}

/// Quantises `x`, which is row `row`.
///
/// # Safety
/// No other thread may be quantising the same row; the CPU must have what the function is compiled for.
#[inline(always)]
pub unsafe fn quantise_row(writer: &Writer<'_>, row: usize, x: &[f32]) {
    // SAFETY: passed on to the caller.
    unsafe {
        match writer.shape.precision {
            InputPrecision::OneTerm => quantise_terms::<1>(writer, row, x, |x, inverse, [coarse]| {
                round_into(x, inverse, coarse)
            }),
            InputPrecision::TwoTerms => quantise_terms::<2>(writer, row, x, |x, inverse, [coarse, fine]| {
                split_into(x, inverse, coarse, fine)
            }),
        }
    }
}

/// `round` fills the terms of a block and returns the sums of their halves, in steps of the last.
///
/// # Safety
/// As [`quantise_row`]; rows have `TERMS`.
#[inline(always)]
unsafe fn quantise_terms<const TERMS: usize>(
    writer: &Writer<'_>,
    row: usize,
    x: &[f32],
    round: impl Fn(&[f32; BLOCK], f32, &mut [[i8; BLOCK]; TERMS]) -> [i32; 2],
) {
    let steps = match TERMS {
        1 => 1.0,
        _ => FINE_STEPS as f32,
    };
    for (block, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        let index = writer.shape.index(row, block);
        // SAFETY: an index belongs to one row, and the caller promises to be alone with it.
        let (q, d, offset) = unsafe {
            (
                writer.q.part(index * BLOCK * TERMS, BLOCK * TERMS),
                &mut writer.d.part(index, 1)[0],
                &mut writer.offset.part(index, 1)[0],
            )
        };
        // SAFETY: as above.
        let (origin, first_origin) = unsafe {
            (
                &mut writer.origin.part(index, 1)[0],
                &mut writer.first_origin.part(index, 1)[0],
            )
        };
        // A copy, which nothing that is written can be part of: so loops become vectors.
        let x = *x;
        let (scale, inverse) = activation_scale(magnitude_max(&x));
        let terms = &mut q.as_chunks_mut::<BLOCK>().0.as_chunks_mut::<TERMS>().0[0];
        let [first, second] = round(&x, inverse, terms);
        *d = scale / steps;
        *offset = *d * (first + second) as f32;
        *origin = -8 * (first + second);
        *first_origin = -8 * first;
    }
}

/// Returns the sums of the halves of the rounded. Two loops, so that each is one over vectors.
#[inline(always)]
fn round_into(x: &[f32; BLOCK], inverse: f32, q: &mut [i8; BLOCK]) -> [i32; 2] {
    for (x, q) in x.iter().zip(q.iter_mut()) {
        *q = to_int8(*x, inverse);
    }
    sums(q)
}

/// The same in two terms; returns the sums in steps of the fine one.
#[inline(always)]
fn split_into(x: &[f32; BLOCK], inverse: f32, coarse: &mut [i8; BLOCK], fine: &mut [i8; BLOCK]) -> [i32; 2] {
    for ((x, coarse), fine) in x.iter().zip(coarse.iter_mut()).zip(fine.iter_mut()) {
        (*coarse, *fine) = to_two_terms(*x, inverse);
    }
    let (coarse, fine) = (sums(coarse), sums(fine));
    [0, 1].map(|half| FINE_STEPS * coarse[half] + fine[half])
}

/// Of each half.
#[inline(always)]
fn sums(q: &[i8; BLOCK]) -> [i32; 2] {
    let halves = q.as_chunks::<{ BLOCK / 2 }>().0;
    [0, 1].map(|half| halves[half].iter().map(|q| i32::from(*q)).sum())
}
