//! Pages of keys and values as the attention kernel reads them.

use crate::cpu::shared::Shared;
use crate::memory::Memory;
use crate::ops::SequenceRows;
use crate::scalar::f32_to_bf16;
use crate::{AttentionShape, OpsError};

/// Positions whose keys are interleaved, one per vector lane.
pub const TOKENS: usize = 16;

/// bf16 in pairs, the first in the low half, so that one shift or one mask widens a vector of them. K is
/// `[block][kv_head][token / 16][dim / 2][token mod 16]` in pairs of dimensions, V is `[block][kv_head][token / 2][dim]` in
/// pairs of positions, with `dim` padded to whole vectors.
pub struct Pages {
    pub shape: PageShape,
    pub k: Memory<u32>,
    pub v: Memory<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageShape {
    pub block_tokens: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl PageShape {
    fn of(shape: &AttentionShape) -> PageShape {
        PageShape {
            block_tokens: shape.block_tokens,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        }
    }

    /// Pairs of 16 positions' K.
    pub fn k_tile(self) -> usize {
        self.head_dim.div_ceil(2) * TOKENS
    }

    /// Pairs of 16 positions' V.
    pub fn v_tile(self) -> usize {
        self.v_stride() * TOKENS / 2
    }

    /// Pairs from two positions' V to those of the next two.
    pub fn v_stride(self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    /// Where the 16 keys and the 16 values around `position` begin.
    #[inline(always)]
    pub fn tile(self, sequence: &SequenceRows, position: usize, kv_head: usize) -> (usize, usize) {
        let block = sequence.blocks[position / self.block_tokens] as usize;
        let tiles = self.block_tokens / TOKENS;
        let tile = (block * self.kv_heads + kv_head) * tiles + position % self.block_tokens / TOKENS;
        (tile * self.k_tile(), tile * self.v_tile())
    }

    /// Pairs of a block's K and V.
    fn block_pairs(self) -> (usize, usize) {
        let tiles = self.block_tokens / TOKENS * self.kv_heads;
        (tiles * self.k_tile(), tiles * self.v_tile())
    }
}

impl Pages {
    /// # Panics
    /// When `block_tokens` is no multiple of 16.
    pub fn new(shape: &AttentionShape, blocks: usize) -> Result<Pages, OpsError> {
        assert!(
            shape.block_tokens.is_multiple_of(TOKENS),
            "blocks of {} positions",
            shape.block_tokens
        );
        let shape = PageShape::of(shape);
        let (k, v) = shape.block_pairs();
        let pairs = |block: usize| {
            block
                .checked_mul(blocks)
                .ok_or(OpsError::OutOfMemory { bytes: usize::MAX })
        };
        Ok(Pages {
            shape,
            k: Memory::zeroed(pairs(k)?)?,
            v: Memory::zeroed(pairs(v)?)?,
        })
    }

    pub fn assert_of(&self, shape: &AttentionShape) {
        assert_eq!(self.shape, PageShape::of(shape), "pages of another shape");
    }

    pub fn zero_blocks(&mut self, blocks: &[u32]) {
        let (k, v) = self.shape.block_pairs();
        for block in blocks {
            self.k[*block as usize * k..][..k].fill(0);
            self.v[*block as usize * v..][..v].fill(0);
        }
    }

    pub fn writer(&mut self) -> Writer<'_> {
        Writer {
            shape: self.shape,
            k: Shared::new(&mut self.k),
            v: Shared::new(&mut self.v),
        }
    }
}

/// Lets several threads append to different KV heads.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    shape: PageShape,
    k: Shared<'a, u32>,
    v: Shared<'a, u32>,
}

impl Writer<'_> {
    /// Stores the key and the value (`head_dim` each) of one position and head.
    ///
    /// # Safety
    /// No other thread may be writing this head.
    pub unsafe fn put(&self, sequence: &SequenceRows, position: usize, kv_head: usize, k: &[f32], v: &[f32]) {
        let (k_tile, v_tile) = self.shape.tile(sequence, position, kv_head);
        let lane = position % TOKENS;
        // SAFETY: both parts belong to this head, which the caller promises to be alone with.
        let (keys, values) = unsafe {
            (
                self.k.part(k_tile, self.shape.k_tile()),
                self.v
                    .part(v_tile + lane / 2 * self.shape.v_stride(), self.shape.head_dim),
            )
        };
        for (keys, k) in keys.chunks_exact_mut(TOKENS).zip(k.chunks(2)) {
            let high = k.get(1).map_or(0, |k| f32_to_bf16(*k));
            keys[lane] = u32::from(f32_to_bf16(k[0])) | u32::from(high) << 16;
        }
        for (value, v) in values.iter_mut().zip(v) {
            let half = u32::from(f32_to_bf16(*v));
            *value = match lane % 2 {
                0 => *value & 0xffff_0000 | half,
                _ => *value & 0xffff | half << 16,
            };
        }
    }
}
