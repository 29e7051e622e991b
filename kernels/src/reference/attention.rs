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
    let (mut m, mut l) = (f32::NEG_INFINITY, 0.0f32);
    let mut acc = vec![0.0f32; shape.head_dim];
    let q: Vec<f32> = q.iter().copied().map(factor).collect();
    for step in (0..positions).step_by(STEP) {
        let step = step..positions.min(step + STEP);
        let s: Vec<f32> = step.clone().map(|t| shape.scale * keys.dot(t, &q)).collect();
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
    acc.iter().map(|acc| acc / l).collect()
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
