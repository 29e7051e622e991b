//! Attention over paged keys and values, and the pages.

use std::ops::Range;

use crate::memory::Memory;
use crate::ops::SequenceRows;
use crate::reference::pairs;
use crate::scalar::{activation_scale, add_lanes, exp, factor, magnitude_max};
use crate::tensor::Tensor;
use crate::{AttentionShape, Batch, KvFormat, OpsError};

/// Positions per step of the online softmax.
pub const STEP: usize = 128;

/// Positions after which an online softmax of its own begins: whole steps.
pub const PART: usize = 4 * STEP;

pub fn attention(shape: &AttentionShape, batch: &Batch, qkv: &Tensor, pages: &Pages, out: &mut Tensor) {
    shape.assert_heads_fit();
    assert_eq!(
        (out.rows(), out.columns()),
        (qkv.rows(), shape.heads * shape.head_dim),
        "heads of each row"
    );
    for sequence in &batch.sequences {
        for index in 0..sequence.rows {
            let row = sequence.first_row + index;
            let positions = sequence.start + index + 1;
            for head in 0..shape.heads {
                let columns = head * shape.head_dim..(head + 1) * shape.head_dim;
                let keys = Keys {
                    pages,
                    sequence,
                    kv_head: shape.kv_head(head),
                };
                let attended = attend(shape, &qkv.row(row)[columns.clone()], keys, positions);
                out.row_mut(row)[columns].copy_from_slice(&attended);
            }
        }
    }
}

fn attend(shape: &AttentionShape, q: &[f32], keys: Keys<'_>, positions: usize) -> Vec<f32> {
    let q: Vec<f32> = q.iter().copied().map(factor).collect();
    let part = |first: usize| attend_to_part(shape, &q, keys, first..positions.min(first + PART));
    let parts = (0..positions).step_by(PART).map(part);
    let Softmax { l, acc, .. } = parts.reduce(join).expect("a row sees itself");
    acc.iter().map(|acc| acc / l).collect()
}

/// How far a softmax has come.
struct Softmax {
    m: f32,
    l: f32,
    acc: Vec<f32>,
}

/// From nothing.
fn attend_to_part(shape: &AttentionShape, q: &[f32], keys: Keys<'_>, part: Range<usize>) -> Softmax {
    let (mut m, mut l) = (f32::NEG_INFINITY, 0.0f32);
    let mut acc = vec![0.0f32; shape.head_dim];
    for first in part.clone().step_by(STEP) {
        let step = first..part.end.min(first + STEP);
        let s: Vec<f32> = step.clone().map(|t| shape.scale * keys.dot(t, q)).collect();
        let m_next = s.iter().fold(m, |m, s| if *s > m { *s } else { m });
        let corr = exp(m - m_next);
        let w: Vec<f32> = s.iter().map(|s| exp(s - m_next)).collect();
        l = l.mul_add(corr, sum(&w));
        let weights: Vec<_> = step
            .clone()
            .zip(w)
            .map(|(t, w)| factor(w * keys.value(t).1))
            .collect();
        for (d, acc) in acc.iter_mut().enumerate() {
            let values = step.clone().map(|t| keys.value(t).0[d]);
            *acc = acc.mul_add(corr, pairs::dot(&weights, values));
        }
        m = m_next;
    }
    Softmax { m, l, acc }
}

/// What came of the parts before, and what came of the next one.
fn join(before: Softmax, next: Softmax) -> Softmax {
    let m = if next.m > before.m { next.m } else { before.m };
    let (a, b) = (exp(before.m - m), exp(next.m - m));
    let accs = before.acc.iter().zip(&next.acc);
    Softmax {
        m,
        l: before.l.mul_add(a, next.l * b),
        acc: accs.map(|(before, next)| before.mul_add(a, next * b)).collect(),
    }
}

fn sum(w: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    for (t, w) in w.iter().enumerate() {
        lanes[t % 16] += w;
    }
    add_lanes(lanes)
}

/// What one query head looks at.
#[derive(Clone, Copy)]
struct Keys<'a> {
    pages: &'a Pages,
    sequence: &'a SequenceRows,
    kv_head: usize,
}

impl<'a> Keys<'a> {
    fn dot(&self, position: usize, q: &[f32]) -> f32 {
        let (k, scale) = self.pages.k.head(self.at(position));
        pairs::dot(q, k.iter().copied()) * scale
    }

    fn value(&self, position: usize) -> (&'a [f32], f32) {
        self.pages.v.head(self.at(position))
    }

    fn at(&self, position: usize) -> usize {
        self.pages.at(self.sequence, position, self.kv_head)
    }
}

pub fn append_kv(
    shape: &AttentionShape,
    batch: &Batch,
    qkv: &Tensor,
    [k_column, v_column]: [usize; 2],
    pages: &mut Pages,
) {
    assert_eq!(
        (shape.kv_heads, shape.head_dim, shape.kv),
        (pages.kv_heads, pages.k.head_dim, pages.k.format),
        "pages of this shape"
    );
    for sequence in &batch.sequences {
        for index in 0..sequence.rows {
            let row = qkv.row(sequence.first_row + index);
            for kv_head in 0..shape.kv_heads {
                let at = pages.at(sequence, sequence.start + index, kv_head);
                let part = |column: usize| &row[column + kv_head * shape.head_dim..][..shape.head_dim];
                pages.k.put(at, part(k_column));
                pages.v.put(at, part(v_column));
            }
        }
    }
}

/// K and V of one layer: each `(blocks, block_tokens, kv_heads)` heads.
pub struct Pages {
    block_tokens: usize,
    kv_heads: usize,
    k: Heads,
    v: Heads,
}

impl Pages {
    pub fn new(shape: &AttentionShape, blocks: usize) -> Result<Pages, OpsError> {
        let sizes = [shape.block_tokens, shape.kv_heads];
        let heads = sizes.iter().try_fold(blocks, |len, size| len.checked_mul(*size));
        let heads = heads.ok_or(OpsError::OutOfMemory { bytes: usize::MAX })?;
        Ok(Pages {
            block_tokens: shape.block_tokens,
            kv_heads: shape.kv_heads,
            k: Heads::new(shape, heads)?,
            v: Heads::new(shape, heads)?,
        })
    }

    pub fn zero_blocks(&mut self, blocks: &[u32]) {
        let heads = self.block_tokens * self.kv_heads;
        for block in blocks {
            let block = *block as usize * heads..(*block as usize + 1) * heads;
            self.k.zero(block.clone());
            self.v.zero(block);
        }
    }

    /// Which of all heads a position's is.
    fn at(&self, sequence: &SequenceRows, position: usize, kv_head: usize) -> usize {
        let block = sequence.blocks[position / self.block_tokens] as usize;
        let slot = block * self.block_tokens + position % self.block_tokens;
        slot * self.kv_heads + kv_head
    }
}

/// `(heads, head_dim)` numbers as they are read, and a scale for each head.
struct Heads {
    format: KvFormat,
    head_dim: usize,
    values: Memory<f32>,
    /// 1 for what was stored in a format that has none.
    scales: Memory<f32>,
}

impl Heads {
    fn new(shape: &AttentionShape, heads: usize) -> Result<Heads, OpsError> {
        let len = heads.checked_mul(shape.head_dim);
        Ok(Heads {
            format: shape.kv,
            head_dim: shape.head_dim,
            values: Memory::zeroed(len.ok_or(OpsError::OutOfMemory { bytes: usize::MAX })?)?,
            scales: Memory::zeroed(heads)?,
        })
    }

    fn head(&self, at: usize) -> (&[f32], f32) {
        (
            &self.values[at * self.head_dim..][..self.head_dim],
            self.scales[at],
        )
    }

    fn put(&mut self, at: usize, values: &[f32]) {
        let stored = self.values[at * self.head_dim..][..self.head_dim].iter_mut();
        match self.format {
            KvFormat::Bf16 => {
                self.scales[at] = 1.0;
                stored
                    .zip(values)
                    .for_each(|(stored, value)| *stored = factor(*value));
            }
            KvFormat::Int8 => {
                let (scale, inverse) = activation_scale(magnitude_max(values));
                self.scales[at] = scale;
                stored.zip(values).for_each(|(stored, value)| {
                    *stored = f32::from((value * inverse).round_ties_even() as i8)
                });
            }
        }
    }

    fn zero(&mut self, heads: Range<usize>) {
        self.values[heads.start * self.head_dim..heads.end * self.head_dim].fill(0.0);
        self.scales[heads].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AttentionShape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        heads_per_kv: 2,
        first_head_in_group: 0,
        head_dim: 8,
        block_tokens: 16,
        scale: 0.35,
        kv: KvFormat::Bf16,
    };

    /// What bf16 holds, so that nothing is lost but in weights.
    fn number(i: usize) -> f32 {
        ((i * 7919) % 251) as f32 / 64.0 - 2.0
    }

    /// Of the last row, in doubles, by the formula of a softmax.
    fn plainly(qkv: &Tensor, head: usize) -> Vec<f64> {
        let last = qkv.row(qkv.rows() - 1);
        let q = &last[head * SHAPE.head_dim..][..SHAPE.head_dim];
        let dot = |k: &[f32]| {
            q.iter()
                .zip(k)
                .map(|(q, k)| f64::from(*q) * f64::from(*k))
                .sum::<f64>()
        };
        let rows: Vec<&[f32]> = (0..qkv.rows()).map(|row| qkv.row(row)).collect();
        let weights: Vec<f64> = rows
            .iter()
            .map(|row| (f64::from(SHAPE.scale) * dot(&row[16..24])).exp())
            .collect();
        let weighted = |d: usize| {
            let values = rows.iter().map(|row| f64::from(row[24 + d]));
            values.zip(&weights).map(|(v, w)| v * w).sum::<f64>()
        };
        let all: f64 = weights.iter().sum();
        (0..SHAPE.head_dim).map(|d| weighted(d) / all).collect()
    }

    #[test]
    fn parts_joined_are_close_to_a_plain_softmax() {
        // The greatest score is in the first, in the last, or in any part; values tell where they are.
        for trend in [-1.0, 0.0, 1.0] {
            for rows in [PART, PART + 1, 2 * PART, 3 * PART + 1] {
                let at = |row: usize| row as f32 / rows as f32;
                let qkv = Tensor::of(rows, 32, |row, column| match column {
                    0..16 => number(column) + trend,
                    16..24 => factor(number(row * 31 + column) + at(row)),
                    _ => factor(number(row * 57 + column) / 4.0 + 3.0 * at(row)),
                });
                let blocks: Vec<u32> = (0..rows.div_ceil(SHAPE.block_tokens) as u32).rev().collect();
                let mut pages = Pages::new(&SHAPE, blocks.len()).unwrap();
                let mut sequence = SequenceRows {
                    first_row: 0,
                    rows,
                    start: 0,
                    blocks,
                };
                let batch = |sequence: &SequenceRows| Batch {
                    sequences: vec![sequence.clone()],
                };
                append_kv(&SHAPE, &batch(&sequence), &qkv, [16, 24], &mut pages);
                (sequence.first_row, sequence.rows, sequence.start) = (rows - 1, 1, rows - 1);
                let mut out = Tensor::of(rows, 16, |_, _| 0.0);
                attention(&SHAPE, &batch(&sequence), &qkv, &pages, &mut out);
                for head in 0..SHAPE.heads {
                    let found = &out.row(rows - 1)[head * SHAPE.head_dim..];
                    for (found, plain) in found.iter().zip(plainly(&qkv, head)) {
                        let error = (f64::from(*found) - plain).abs();
                        assert!(error < 2e-3, "{rows} rows, {trend}: {found}, not {plain}");
                    }
                }
            }
        }
    }
}
