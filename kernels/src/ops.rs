//! The seam between a model and a device: about fifteen LLM-sized operations.
//!
//! # Bitwise batch invariance
//!
//! Every operation computes each output row by the same sequence of roundings whatever other rows are present, however
//! many threads compute and whatever instructions the CPU has. The exact arithmetic is part of the contract:
//!
//! * **matmul, quantised weights** (`Q8_0`, `Q4_0`, `Q4_1`, `Q4_K`, `Q5_K`, `Q6_K`): the input row is quantised in blocks of 32:
//!   `amax = max|x|`, `d = amax / 127`, `q = round_ties_even(x · (1 / d))` (exceptions: [`crate::scalar::activation_scale`]).
//!   Per block the dot product of integers is exact, and becomes an f32 rounded to nearest, ties to even. Then, blocks in
//!   ascending order, in f32 with fused multiply-adds: `acc = fma(float(isum), dw · d, acc)`, and for Q4_1, Q4_K and Q5_K after it
//!   `acc = fma(m, d · float(Σq), acc)`, where the latter have `dw = d · s` and `m = −e · t`, exact (decisions 0023, 0024). For Q4_0
//!   the integers are `(nibble − 8)`, for Q6_K `s · (q − 32)` with the scale `s` of their 16 (decision 0022). `acc` starts at +0.
//!   With [`InputPrecision::TwoTerms`] it is `q = round_ties_even(x · (1 / d) · 8)`, and `d / 8` in place of `d`.
//! * **matmul, F32 and F16 weights**: `acc = fma(w[k], x[k], acc)`, k ascending, weights widened exactly to f32.
//! * **matmul, Bf16 weights**: inputs rounded to bf16; per block of 32 inputs the even ones' `e = fma(x[k], w[k], e)` and the odd
//!   ones' `o` alike, each from zero; then `acc = acc + (e + o)`. Inputs and weights of magnitudes below 2⁻⁵⁰ count as zero. It is
//!   the order of `TDPBF16PS` (decision 0015).
//! * **Q5_0 weights** are Q8_0 weights with the same scale and the integers `q − 16` (decision 0021).
//! * Output columns are independent of each other, so cutting a matrix by output rows changes no bit.
//! * **attention**: per head and row; online softmaxes in steps of 128 positions, one for each 512 positions, joined in ascending order
//!   (decision 0019), whose formula is in [`crate::reference`], independent of the page size; K and V are read back as stored
//!   ([`KvFormat`]), also within a chunk. Queries and weights are rounded to bf16 where they are multiplied, and products are added as
//!   with bf16 weights: of a head in blocks of 32 dimensions, of a step in blocks of 32 positions (decision 0016).
//!
//! A broken precondition (mismatched shapes, a block id out of range) is a bug of the caller and panics.

use crate::{KvFormat, PackedBytes, WeightFormat};

pub trait Ops: Send {
    /// f32, row-major `(rows, columns)`; `columns` is fixed, `rows` can be set up to a capacity given at creation.
    type Tensor: Send;
    /// One weight matrix `(outputs, inputs)`, packed as the device likes it.
    type Weights: Send + Sync;
    /// The KV bytes of one layer: `(blocks, block_tokens, kv_heads, head_dim)` for K and for V, in the shape's format and a
    /// layout of the device's own.
    type Pages: Send;

    /// Zeroed, `rows()` = 0.
    fn tensor(&self, rows_max: usize, columns: usize) -> Result<Self::Tensor, OpsError>;
    /// # Panics
    /// When `rows` is more than the capacity.
    fn set_rows(&self, tensor: &mut Self::Tensor, rows: usize);
    fn read<'a>(&self, tensor: &'a Self::Tensor) -> &'a [f32];
    fn write(&self, tensor: &mut Self::Tensor, values: &[f32]);

    /// The form in which this device packs weights. Another form, another number.
    fn packing(&self) -> u32;
    /// `bytes` are `outputs` rows as stored in the file. Errors: wrong length, no memory.
    fn pack(
        &self,
        format: WeightFormat,
        bytes: &[u8],
        outputs: usize,
        inputs: usize,
    ) -> Result<Self::Weights, OpsError>;
    /// What `pack` made of a matrix, for [`adopt`](Self::adopt) to take instead of doing it again.
    fn packed<'a>(&self, weights: &'a Self::Weights) -> &'a [u8];
    /// As `pack`, from what it made of the same matrix before, in any process where [`packing`](Self::packing) was the
    /// same. Errors: wrong length.
    fn adopt(
        &self,
        format: WeightFormat,
        packed: PackedBytes,
        outputs: usize,
        inputs: usize,
    ) -> Result<Self::Weights, OpsError>;
    /// Pages of one layer for `blocks` blocks. Errors: no memory.
    fn pages(&self, shape: &AttentionShape, blocks: usize) -> Result<Self::Pages, OpsError>;

    /// `out[r] = row tokens[r] of table`, dequantised with one rounding (`d · q`, for Q4_1, Q4_K and Q5_K `fma(d, q, m)`; Q6_K exactly).
    /// `out.rows` must be `tokens.len()`.
    fn embed(&mut self, table: &Self::Weights, tokens: &[u32], out: &mut Self::Tensor);
    /// `out[r] = x[r] · (1 / sqrt(mean(x[r]²) + eps)) · weight`. The sum of squares runs by fused multiply-adds in 16
    /// interleaved f32 lanes (`lane = column mod 16`), then added pairwise (0+8, 1+9, …; 0+4, …; 0+2, 1+3; 0+1).
    fn rms_norm(&mut self, x: &Self::Tensor, weight: &[f32], eps: f32, out: &mut Self::Tensor);
    /// The products of `x` with each of `weights`, side by side in the columns of `out`. Float weights see `x` as it is, or
    /// in bf16, whatever the precision.
    fn matmul(
        &mut self,
        weights: &[&Self::Weights],
        x: &Self::Tensor,
        precision: InputPrecision,
        out: &mut Self::Tensor,
    );
    /// Rotates, in place, the `heads` heads of each row that begin at column `first_column`; formula in
    /// [`crate::reference`].
    fn rope(
        &mut self,
        table: &RopeTable,
        positions: &[u32],
        x: &mut Self::Tensor,
        first_column: usize,
        heads: usize,
        head_dim: usize,
    );
    /// Stores, for each row, K from `qkv` columns `k_column..` and V from `v_column..` into the row's page slot.
    fn append_kv(
        &mut self,
        shape: &AttentionShape,
        batch: &Batch,
        qkv: &Self::Tensor,
        k_column: usize,
        v_column: usize,
        pages: &mut Self::Pages,
    );
    /// Causal attention of each row's heads (columns `0 .. heads·head_dim` of `qkv`) over its own sequence's pages.
    /// `out` has `heads · head_dim` columns. Sequences' rows must ascend and not overlap; rows of `out` that belong to
    /// no sequence keep what they held.
    fn attention(
        &mut self,
        shape: &AttentionShape,
        batch: &Batch,
        qkv: &Self::Tensor,
        pages: &Self::Pages,
        out: &mut Self::Tensor,
    );
    /// `x` holds gate and up side by side: `out = silu(gate) · up`.
    fn silu_mul(&mut self, x: &Self::Tensor, out: &mut Self::Tensor);
    /// `x += y`.
    fn add(&mut self, x: &mut Self::Tensor, y: &Self::Tensor);
    /// `out[i] = x[rows[i]]`.
    fn gather_rows(&mut self, x: &Self::Tensor, rows: &[u32], out: &mut Self::Tensor);
    /// Sets all K and V of these blocks to zero.
    fn zero_blocks(&mut self, pages: &mut Self::Pages, blocks: &[u32]);
}

/// Why a device could not give what was asked for.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum OpsError {
    #[error("a matrix of {outputs} × {inputs} {format:?} has {expected} bytes, not {found}")]
    WrongLength {
        format: WeightFormat,
        outputs: usize,
        inputs: usize,
        expected: usize,
        found: usize,
    },
    #[error("rows of {inputs} do not fit blocks of {format:?}")]
    WrongBlock { format: WeightFormat, inputs: usize },
    #[error("out of memory: {bytes} bytes were not granted")]
    OutOfMemory { bytes: usize },
}

/// How finely a product with quantised weights sees its input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InputPrecision {
    /// int8 in blocks of 32.
    OneTerm,
    /// In eighths of that step: int8, and int8 for what that left over. About 11 bits, for up to twice the arithmetic.
    TwoTerms,
}

impl InputPrecision {
    pub const fn terms(self) -> usize {
        match self {
            InputPrecision::OneTerm => 1,
            InputPrecision::TwoTerms => 2,
        }
    }
}

/// The attention of one layer on one rank.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionShape {
    /// Query heads of this rank.
    pub heads: usize,
    /// For each query head of this rank, `kv_head = (first_head_in_group + head) / heads_per_kv`.
    pub kv_heads: usize,
    /// How many query heads share one KV head.
    pub heads_per_kv: usize,
    /// Where this rank's first query head stands within its KV head's group (uneven cuts).
    pub first_head_in_group: usize,
    pub head_dim: usize,
    /// Positions per page; a multiple of 16.
    pub block_tokens: usize,
    /// Multiplied with q·k.
    pub scale: f32,
    pub kv: KvFormat,
}

impl AttentionShape {
    /// The KV head of this rank that a query head of this rank attends to.
    pub const fn kv_head(&self, head: usize) -> usize {
        (self.first_head_in_group + head) / self.heads_per_kv
    }

    /// # Panics
    /// When a query head has no KV head here, or heads are larger than [`HEAD_DIM_MAX`].
    pub(crate) fn assert_heads_fit(&self) {
        assert!(
            self.head_dim <= HEAD_DIM_MAX,
            "heads of {} dimensions",
            self.head_dim
        );
        let groups = (self.first_head_in_group + self.heads).div_ceil(self.heads_per_kv);
        assert!(
            groups <= self.kv_heads,
            "query heads of {groups} KV heads, of which there are {}",
            self.kv_heads
        );
    }
}

/// Dimensions of a head, at most.
pub const HEAD_DIM_MAX: usize = 512;

/// Which rows of a step belong to which sequence.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    pub sequences: Vec<SequenceRows>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct SequenceRows {
    pub first_row: usize,
    pub rows: usize,
    /// Position of `first_row`; the rows' positions are consecutive.
    pub start: usize,
    /// The sequence's pages, covering at least `start + rows` positions.
    pub blocks: Vec<u32>,
}

/// Sines and cosines for each position and pair.
#[derive(Clone, PartialEq, Debug)]
pub struct RopeTable {
    /// How many leading dimensions of a head are rotated; even.
    pub rotated: usize,
    pub pairing: RopePairing,
    /// `(positions, rotated / 2)`
    pub cos: Vec<f32>,
    /// `(positions, rotated / 2)`
    pub sin: Vec<f32>,
}

/// Which two dimensions are rotated together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RopePairing {
    /// `(2i, 2i + 1)`: Llama weights as stored in GGUF.
    Interleaved,
    /// `(i, i + rotated / 2)`: Hugging Face layout.
    Halves,
}
