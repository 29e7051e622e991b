//! Quantised rows of activations, as the kernels read them.

use std::ops::Range;

use crate::cpu::shared::Shared;
use crate::memory::Memory;
use crate::scalar::{BLOCK, activation_scale, magnitude_max, to_int8};
use crate::{InputPrecision, OpsError};

/// Rows that a kernel takes together.
pub const TILE: usize = 16;

/// Rows in tiles of [`TILE`] (the last may have fewer), each tile contiguous: `[tile][block][row][term]`.
pub struct Activations {
    shape: Shape,
    q: Memory<i8>,
    d: Memory<f32>,
    /// `d · Σq`
    offset: Memory<f32>,
    /// `−8 · Σq`: what is to be added where weights stand 8 above their value.
    origin: Memory<i32>,
}

/// Of a row of so many inputs, as it is kept.
pub fn row_bytes(inputs: usize, precision: InputPrecision) -> usize {
    let (scales, origin) = (2 * size_of::<f32>(), size_of::<i32>());
    (inputs + inputs / BLOCK * (scales + origin)) * precision.terms()
}

impl Activations {
    pub fn new() -> Result<Activations, OpsError> {
        let (q, d, offset, origin) = (
            Memory::zeroed(0)?,
            Memory::zeroed(0)?,
            Memory::zeroed(0)?,
            Memory::zeroed(0)?,
        );
        Ok(Activations {
            shape: Shape {
                rows: 0,
                blocks: 0,
                precision: InputPrecision::OneTerm,
            },
            q,
            d,
            offset,
            origin,
        })
    }

    /// Takes this shape; grows if need be. What it held is lost.
    pub fn resize(&mut self, rows: usize, inputs: usize, precision: InputPrecision) -> Result<(), OpsError> {
        self.shape = Shape {
            rows,
            blocks: inputs / BLOCK,
            precision,
        };
        let blocks = rows * self.shape.blocks * precision.terms();
        if blocks > self.d.len() {
            self.q = Memory::zeroed(blocks * BLOCK)?;
            (self.d, self.offset) = (Memory::zeroed(blocks)?, Memory::zeroed(blocks)?);
            self.origin = Memory::zeroed(blocks)?;
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
        }
    }

    /// `rows` begins at a tile and ends within it.
    #[inline(always)]
    pub fn tile(&self, rows: Range<usize>) -> Tile<'_> {
        let shape = self.shape;
        let start = shape.index(rows.start, 0);
        let blocks = start..start + shape.rows_in_tile(rows.start) * shape.blocks * shape.precision.terms();
        assert!(
            rows.len() == shape.rows_in_tile(rows.start),
            "rows {rows:?} are no tile"
        );
        Tile {
            rows: rows.len(),
            q: &self.q[blocks.start * BLOCK..blocks.end * BLOCK],
            d: &self.d[blocks.clone()],
            offset: &self.offset[blocks.clone()],
            origin: &self.origin[blocks],
        }
    }
}

/// One tile: each slice is `[block][row][term]`.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    pub rows: usize,
    pub q: &'a [i8],
    pub d: &'a [f32],
    pub offset: &'a [f32],
    pub origin: &'a [i32],
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

    /// Of the first term of a row's block among all terms.
    #[inline(always)]
    fn index(self, row: usize, block: usize) -> usize {
        (row / TILE * TILE * self.blocks + block * self.rows_in_tile(row) + row % TILE)
            * self.precision.terms()
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
}

/// Quantises `x`, which is row `row`.
///
/// # Safety
/// No other thread may be quantising the same row; the CPU must have what the function is compiled for.
#[inline(always)]
pub unsafe fn quantise_row(writer: &Writer<'_>, row: usize, x: &[f32]) {
    for (block, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
        let first = writer.shape.index(row, block);
        let mut rest = *x;
        let last = first + writer.shape.precision.terms() - 1;
        for index in first..=last {
            // SAFETY: an index belongs to one row, and the caller promises to be alone with it.
            let (q, d, offset, origin) = unsafe {
                (
                    &mut writer.q.part(index * BLOCK, BLOCK).as_chunks_mut::<BLOCK>().0[0],
                    &mut writer.d.part(index, 1)[0],
                    &mut writer.offset.part(index, 1)[0],
                    &mut writer.origin.part(index, 1)[0],
                )
            };
            let (scale, inverse) = activation_scale(magnitude_max(&rest));
            let sum = round_into(&rest, inverse, q);
            *d = scale;
            *offset = scale * sum as f32;
            *origin = -8 * sum;
            if index < last {
                for (rest, q) in rest.iter_mut().zip(q) {
                    *rest = (-scale).mul_add(f32::from(*q), *rest);
                }
            }
        }
    }
}

/// Returns the sum of the rounded. Two loops, so that each is one over vectors.
#[inline(always)]
fn round_into(x: &[f32; BLOCK], inverse: f32, q: &mut [i8; BLOCK]) -> i32 {
    for (x, q) in x.iter().zip(q.iter_mut()) {
        *q = to_int8(*x, inverse);
    }
    q.iter().map(|q| i32::from(*q)).sum()
}
