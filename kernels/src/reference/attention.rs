//! Attention over paged keys and values, and the pages.

use crate::memory::Memory;
use crate::ops::SequenceRows;
use crate::scalar::{add_lanes, bf16_to_f32, exp, f32_to_bf16};
use crate::tensor::Tensor;
use crate::{AttentionShape, Batch, OpsError};

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
    for step in (0..positions).step_by(STEP) {
        let step = step..positions.min(step + STEP);
        let s: Vec<f32> = step.clone().map(|t| shape.scale * keys.dot(t, q)).collect();
        let m_next = s.iter().fold(m, |m, s| if *s > m { *s } else { m });
        let corr = exp(m - m_next);
        let w: Vec<f32> = s.iter().map(|s| exp(s - m_next)).collect();
        l = l.mul_add(corr, sum(&w));
        acc.iter_mut().for_each(|acc| *acc *= corr);
        for (t, w) in step.zip(w) {
            let v = keys.value(t);
            acc.iter_mut()
                .zip(v)
                .for_each(|(acc, v)| *acc = w.mul_add(bf16_to_f32(*v), *acc));
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
        let k = &self.pages.k[self.pages.at(self.sequence, position, self.kv_head)..];
        q.iter()
            .zip(k)
            .fold(0.0, |acc, (q, k)| q.mul_add(bf16_to_f32(*k), acc))
    }

    fn value(&self, position: usize) -> &'a [u16] {
        &self.pages.v[self.pages.at(self.sequence, position, self.kv_head)..][..self.pages.head_dim]
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
        (shape.kv_heads, shape.head_dim),
        (pages.kv_heads, pages.head_dim),
        "pages of this shape"
    );
    for sequence in &batch.sequences {
        for index in 0..sequence.rows {
            let row = qkv.row(sequence.first_row + index);
            let slot = pages.at(sequence, sequence.start + index, 0);
            let columns = shape.kv_heads * shape.head_dim;
            round_into(&row[k_column..][..columns], &mut pages.k[slot..]);
            round_into(&row[v_column..][..columns], &mut pages.v[slot..]);
        }
    }
}

fn round_into(values: &[f32], stored: &mut [u16]) {
    for (value, stored) in values.iter().zip(stored) {
        *stored = f32_to_bf16(*value);
    }
}

/// K and V of one layer: each `(blocks, block_tokens, kv_heads, head_dim)`, bf16.
pub struct Pages {
    block_tokens: usize,
    kv_heads: usize,
    head_dim: usize,
    k: Memory<u16>,
    v: Memory<u16>,
}

impl Pages {
    pub fn new(shape: &AttentionShape, blocks: usize) -> Result<Pages, OpsError> {
        let AttentionShape {
            kv_heads,
            head_dim,
            block_tokens,
            ..
        } = *shape;
        let sizes = [block_tokens, kv_heads, head_dim];
        let len = sizes.iter().try_fold(blocks, |len, size| len.checked_mul(*size));
        let len = len.ok_or(OpsError::OutOfMemory { bytes: usize::MAX })?;
        Ok(Pages {
            block_tokens,
            kv_heads,
            head_dim,
            k: Memory::zeroed(len)?,
            v: Memory::zeroed(len)?,
        })
    }

    pub fn zero_blocks(&mut self, blocks: &[u32]) {
        let len = self.block_tokens * self.kv_heads * self.head_dim;
        for block in blocks {
            let elements = *block as usize * len..(*block as usize + 1) * len;
            self.k[elements.clone()].fill(0);
            self.v[elements].fill(0);
        }
    }

    /// Where the `head_dim` elements of a position and head begin.
    fn at(&self, sequence: &SequenceRows, position: usize, kv_head: usize) -> usize {
        let block = sequence.blocks[position / self.block_tokens] as usize;
        let slot = block * self.block_tokens + position % self.block_tokens;
        (slot * self.kv_heads + kv_head) * self.head_dim
    }
}
