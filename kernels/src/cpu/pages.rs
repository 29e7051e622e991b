//! Pages of keys and values as the attention kernel reads them.

use crate::cpu::lanes::{Lanes, to_array};
use crate::cpu::pairing::{Pairing, QUAD};
use crate::cpu::shared::Shared;
use crate::memory::Memory;
use crate::ops::SequenceRows;
use crate::scalar::{BLOCK, activation_scale, factor_bf16, magnitude_max, to_int8};
use crate::{AttentionShape, KvFormat, OpsError};

/// Positions whose keys are interleaved, one per vector lane.
pub const TOKENS: usize = 16;

/// Elements side by side in words of 32 bits, so that a shift or a mask widens a vector of them: `n = 2` in bf16, paired as
/// [`Pairing`] says, 4 in int8, the first in the lowest bits. K is `[block][kv_head][token / 16][dim / n][token mod 16]` in words of dimensions, V is
/// `[block][kv_head][token / n][dim]` in words of positions, with `dim` padded to whole vectors; scales are
/// `[block][kv_head][token]`, where the format has them.
pub struct Pages {
    pub shape: PageShape,
    pub k: Memory<u32>,
    pub v: Memory<u32>,
    pub k_scales: Memory<f32>,
    pub v_scales: Memory<f32>,
}

/// A [`KvFormat`] as the kernels know it.
pub trait Form {
    /// Elements in 32 bits.
    const PER_WORD: usize;
    /// Whether each position and head has a scale.
    const SCALED: bool;

    /// Element `index` of each word.
    ///
    /// # Safety
    /// As [`Lanes::load`], of words.
    unsafe fn load<L: Lanes>(from: *const u32, index: usize) -> L;

    /// Elements `index` (even) and `index + 1` of 16 words, in bf16.
    ///
    /// # Safety
    /// As [`load`](Self::load), by 16 lanes.
    unsafe fn pairs<L: Lanes>(from: *const u32, index: usize) -> [u32; TOKENS];

    /// 32 dimensions of 16 keys, in bf16: where they are, or in `room`.
    ///
    /// # Safety
    /// As [`pairs`](Self::pairs), of all words of the dimensions; there is room.
    unsafe fn key_pairs<L: Lanes>(from: *const u32, room: *mut [u32; BLOCK / 2 * TOKENS]) -> *const u32;
}

pub struct Bf16;
pub struct Int8;

impl Form for Bf16 {
    const PER_WORD: usize = 2;
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u32, index: usize) -> L {
        // SAFETY: passed on to the caller.
        unsafe {
            match index {
                0 => L::load_low_bf16(from),
                _ => L::load_high_bf16(from),
            }
        }
    }

    #[inline(always)]
    unsafe fn pairs<L: Lanes>(from: *const u32, _index: usize) -> [u32; TOKENS] {
        // SAFETY: passed on to the caller.
        unsafe { from.cast::<[u32; TOKENS]>().read() }
    }

    #[inline(always)]
    unsafe fn key_pairs<L: Lanes>(from: *const u32, _room: *mut [u32; BLOCK / 2 * TOKENS]) -> *const u32 {
        from
    }
}

impl Form for Int8 {
    const PER_WORD: usize = 4;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u32, index: usize) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load_int8(from, index) }
    }

    /// What has eight bits is in bf16 what it is.
    #[inline(always)]
    unsafe fn pairs<L: Lanes>(from: *const u32, index: usize) -> [u32; TOKENS] {
        // SAFETY: passed on to the caller.
        let (low, high) = unsafe { (Self::load::<L>(from, index), Self::load::<L>(from, index + 1)) };
        let (low, high) = (to_array(low), to_array(high));
        let mut words = [0; TOKENS];
        for (word, (low, high)) in words.iter_mut().zip(low.into_iter().zip(high)) {
            *word = low.to_bits() >> 16 | high.to_bits();
        }
        words
    }

    #[inline(always)]
    unsafe fn key_pairs<L: Lanes>(from: *const u32, room: *mut [u32; BLOCK / 2 * TOKENS]) -> *const u32 {
        // SAFETY: passed on to the caller.
        unsafe {
            let rows = (*room).as_chunks_mut::<TOKENS>().0;
            for (pair, row) in rows.iter_mut().enumerate() {
                let (word, index) = (2 * pair / Self::PER_WORD, 2 * pair % Self::PER_WORD);
                *row = Self::pairs::<L>(from.add(word * TOKENS), index);
            }
        }
        room.cast()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageShape {
    pub block_tokens: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub format: KvFormat,
    /// Of what is in bf16.
    pub pairing: Pairing,
}

/// Where the 16 keys and values around a position begin: words, and scales.
#[derive(Clone, Copy)]
pub struct TileAt {
    pub k: usize,
    pub v: usize,
    pub scales: usize,
}

impl PageShape {
    /// Heads that are no whole quads, and what is not in bf16, are by neighbours.
    fn of(shape: &AttentionShape, pairing: Pairing) -> PageShape {
        let pairing = match shape.kv {
            KvFormat::Bf16 if shape.head_dim.is_multiple_of(QUAD) => pairing,
            KvFormat::Bf16 | KvFormat::Int8 => Pairing::Neighbours,
        };
        PageShape {
            pairing,
            block_tokens: shape.block_tokens,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            format: shape.kv,
        }
    }

    #[inline(always)]
    fn per_word(self) -> usize {
        match self.format {
            KvFormat::Bf16 => Bf16::PER_WORD,
            KvFormat::Int8 => Int8::PER_WORD,
        }
    }

    /// Words of 16 positions' K.
    #[inline(always)]
    pub fn k_tile(self) -> usize {
        self.head_dim.div_ceil(self.per_word()) * TOKENS
    }

    /// Words of 16 positions' V.
    #[inline(always)]
    pub fn v_tile(self) -> usize {
        self.v_stride() * TOKENS / self.per_word()
    }

    /// Words from some positions' V to those of the next.
    pub fn v_stride(self) -> usize {
        self.head_dim.next_multiple_of(16)
    }

    /// Tiles before that of a position.
    #[inline(always)]
    pub fn before(self, sequence: &SequenceRows, position: usize, kv_head: usize) -> usize {
        let block = sequence.blocks[position / self.block_tokens] as usize;
        let tiles = self.block_tokens / TOKENS;
        (block * self.kv_heads + kv_head) * tiles + position % self.block_tokens / TOKENS
    }

    /// After `tiles` tiles.
    #[inline(always)]
    pub fn at(self, tiles: usize) -> TileAt {
        TileAt {
            k: tiles * self.k_tile(),
            v: tiles * self.v_tile(),
            scales: match self.format {
                KvFormat::Bf16 => 0,
                KvFormat::Int8 => tiles * TOKENS,
            },
        }
    }

    /// Where a block ends that begins at nothing.
    fn block(self) -> TileAt {
        self.at(self.block_tokens / TOKENS * self.kv_heads)
    }
}

impl Pages {
    /// # Panics
    /// When `block_tokens` is no multiple of 16.
    pub fn new(shape: &AttentionShape, pairing: Pairing, blocks: usize) -> Result<Pages, OpsError> {
        assert!(
            shape.block_tokens.is_multiple_of(TOKENS),
            "blocks of {} positions",
            shape.block_tokens
        );
        let shape = PageShape::of(shape, pairing);
        let TileAt { k, v, scales } = shape.block();
        let all = |block: usize| {
            block
                .checked_mul(blocks)
                .ok_or(OpsError::OutOfMemory { bytes: usize::MAX })
        };
        Ok(Pages {
            shape,
            k: Memory::zeroed(all(k)?)?,
            v: Memory::zeroed(all(v)?)?,
            k_scales: Memory::zeroed(all(scales)?)?,
            v_scales: Memory::zeroed(all(scales)?)?,
        })
    }

    pub fn assert_of(&self, shape: &AttentionShape, pairing: Pairing) {
        assert_eq!(
            self.shape,
            PageShape::of(shape, pairing),
            "pages of another shape"
        );
    }

    pub fn zero_blocks(&mut self, blocks: &[u32]) {
        let TileAt { k, v, scales } = self.shape.block();
        for block in blocks.iter().map(|block| *block as usize) {
            self.k[block * k..][..k].fill(0);
            self.v[block * v..][..v].fill(0);
            self.k_scales[block * scales..][..scales].fill(0.0);
            self.v_scales[block * scales..][..scales].fill(0.0);
        }
    }

    pub fn writer(&mut self) -> Writer<'_> {
        Writer {
            shape: self.shape,
            k: Shared::new(&mut self.k),
            v: Shared::new(&mut self.v),
            k_scales: Shared::new(&mut self.k_scales),
            v_scales: Shared::new(&mut self.v_scales),
        }
    }
}

/// Lets several threads append to different KV heads.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    shape: PageShape,
    k: Shared<'a, u32>,
    v: Shared<'a, u32>,
    k_scales: Shared<'a, f32>,
    v_scales: Shared<'a, f32>,
}

impl Writer<'_> {
    /// Stores the key and the value (`head_dim` each) of one position and head.
    ///
    /// # Safety
    /// No other thread may be writing this head.
    pub unsafe fn put(&self, sequence: &SequenceRows, position: usize, kv_head: usize, k: &[f32], v: &[f32]) {
        let at = self.shape.at(self.shape.before(sequence, position, kv_head));
        let lane = position % TOKENS;
        // SAFETY: all belongs to this head, which the caller promises to be alone with.
        unsafe {
            match (self.shape.format, self.shape.pairing) {
                (KvFormat::Bf16, Pairing::Neighbours) => {
                    self.put_halves(at, lane, k, v, |index| Pairing::Neighbours.place(index));
                }
                (KvFormat::Bf16, Pairing::Crossed) => {
                    self.put_halves(at, lane, k, v, |index| Pairing::Crossed.place(index));
                }
                (KvFormat::Int8, Pairing::Neighbours | Pairing::Crossed) => {
                    let place = |index| (index / Int8::PER_WORD, index % Int8::PER_WORD * 8);
                    let (scale, inverse) = activation_scale(magnitude_max(k));
                    self.k_scales.part(at.scales + lane, 1)[0] = scale;
                    self.put_key::<{ Int8::PER_WORD }>(at, lane, k, place, |k| bits(to_int8(k, inverse)));
                    let (scale, inverse) = activation_scale(magnitude_max(v));
                    self.v_scales.part(at.scales + lane, 1)[0] = scale;
                    self.put_value::<{ Int8::PER_WORD }>(at, lane, v, place, |v| bits(to_int8(v, inverse)));
                }
            }
        }
    }

    /// Of bf16.
    ///
    /// # Safety
    /// As [`put`](Self::put).
    #[inline(always)]
    unsafe fn put_halves(
        &self,
        at: TileAt,
        lane: usize,
        k: &[f32],
        v: &[f32],
        place: impl Fn(usize) -> (usize, usize),
    ) {
        let half = |x: f32| u32::from(factor_bf16(x));
        // SAFETY: passed on to the caller.
        unsafe {
            self.put_key::<{ Bf16::PER_WORD }>(at, lane, k, &place, half);
            self.put_value::<{ Bf16::PER_WORD }>(at, lane, v, &place, half);
        }
    }

    /// `place` says in which word an element lies, and how far left.
    ///
    /// # Safety
    /// As [`put`](Self::put).
    #[inline(always)]
    unsafe fn put_key<const PER_WORD: usize>(
        &self,
        at: TileAt,
        lane: usize,
        k: &[f32],
        place: impl Fn(usize) -> (usize, usize),
        store: impl Fn(f32) -> u32,
    ) {
        // SAFETY: passed on to the caller.
        let keys = unsafe { self.k.part(at.k, self.shape.k_tile()) };
        for (keys, k) in keys.chunks_mut(TOKENS * QUAD / PER_WORD).zip(k.chunks(QUAD)) {
            let mut words = [0; QUAD];
            for (index, k) in k.iter().enumerate() {
                let (word, shift) = place(index);
                words[word] |= store(*k) << shift;
            }
            for (keys, word) in keys.chunks_exact_mut(TOKENS).zip(words) {
                keys[lane] = word;
            }
        }
    }

    /// # Safety
    /// As [`put_key`](Self::put_key).
    #[inline(always)]
    unsafe fn put_value<const PER_WORD: usize>(
        &self,
        at: TileAt,
        lane: usize,
        v: &[f32],
        place: impl Fn(usize) -> (usize, usize),
        store: impl Fn(f32) -> u32,
    ) {
        let (word, shift) = place(lane);
        let from = at.v + word * self.shape.v_stride();
        // SAFETY: passed on to the caller.
        let values = unsafe { self.v.part(from, self.shape.head_dim) };
        let others = !((u32::MAX >> (32 - 32 / PER_WORD)) << shift);
        for (value, v) in values.iter_mut().zip(v) {
            *value = *value & others | store(*v) << shift;
        }
    }
}

fn bits(value: i8) -> u32 {
    u32::from(value as u8)
}
