//! Plain loops: the truth that every fast kernel is compared with.
//!
//! # Attention, exactly
//!
//! For one query head of one row at position `p`, over the cached positions `0 ..= p` and in f32:
//!
//! 1. Positions are cut into parts of [`PART`] (`0 .. 512`, `512 .. 1024`, …), these into steps of [`STEP`] (`0 .. 128`, `128 .. 256`,
//!    …), whatever the page size and the chunking. Each part is an online softmax of its own, by 2 to 6.
//! 2. `s[t] = scale · (q · K[t])`, where `·` of two rows is as [with bf16 weights](crate::ops): both in bf16, nothing below 2⁻⁵⁰; of each
//!    32 products the even ones added by fused multiply-adds from +0, the odd ones alike, then both, then to those before. Where K
//!    is kept in int8, the sum is multiplied by the position's scale before `scale`.
//! 3. `m' = max(m, max s[t])` over the step's positions up to `p`; at first `m` is −∞, `l` and `acc` are +0.
//! 4. `corr = exp(m − m')`; `w[t] = exp(s[t] − m')` with [`exp`](crate::scalar::exp).
//! 5. `sum`: 16 lanes (`lane = t mod 16`), `t` ascending, then added pairwise ([`add_lanes`](crate::scalar::add_lanes)).
//! 6. `l = fma(l, corr, sum)`; `acc[d] = fma(acc[d], corr, w · V[..][d])`, with the product over the step's positions as in 2 and `w` in
//!    bf16. Where V is kept in int8, `w[t]` is multiplied by the position's scale before that. Kernels may count positions behind `p`
//!    that other rows of the call see, with a weight of 0: a difference only if what is there is not a number.
//! 7. Parts are joined in ascending order, those alone that begin at `p` or before. The first is taken as it is. Then with each next one,
//!    whose outcome is `m₂`, `l₂` and `acc₂`: `m' = max(m, m₂)`, `a = exp(m − m')`, `b = exp(m₂ − m')`, `l = fma(l, a, l₂ · b)` and
//!    `acc[d] = fma(acc[d], a, acc₂[d] · b)` (decision 0019).
//! 8. At last `out[d] = acc[d] / l`.
//!
//! # Rope, exactly
//!
//! For a pair `(a, b)`: `a' = fma(a, cos, −(b · sin))`, `b' = fma(b, cos, a · sin)`.

mod act;
mod attention;
mod matmul;
mod norm;
mod pairs;
mod quant;
mod rope;
mod rows;

pub use attention::{PART, Pages, STEP};
pub use matmul::Matrix;

use crate::tensor::Tensor;
use crate::{AttentionShape, Batch, InputPrecision, Ops, OpsError, PackedBytes, RopeTable, WeightFormat};

/// The truth. Single-threaded and slow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Ops for Reference {
    type Tensor = Tensor;
    type Weights = Matrix;
    type Pages = Pages;

    fn tensor(&self, rows_max: usize, columns: usize) -> Result<Tensor, OpsError> {
        Tensor::new(rows_max, columns)
    }

    fn set_rows(&self, tensor: &mut Tensor, rows: usize) {
        tensor.set_rows(rows);
    }

    fn read<'a>(&self, tensor: &'a Tensor) -> &'a [f32] {
        tensor.values()
    }

    fn write(&self, tensor: &mut Tensor, values: &[f32]) {
        tensor.values_mut().copy_from_slice(values);
    }

    fn packing(&self) -> u32 {
        0
    }

    fn pack(
        &self,
        format: WeightFormat,
        bytes: &[u8],
        outputs: usize,
        inputs: usize,
    ) -> Result<Matrix, OpsError> {
        Matrix::new(format, bytes, outputs, inputs)
    }

    fn packed<'a>(&self, weights: &'a Matrix) -> &'a [u8] {
        weights.bytes()
    }

    fn adopt(
        &self,
        format: WeightFormat,
        packed: PackedBytes,
        outputs: usize,
        inputs: usize,
    ) -> Result<Matrix, OpsError> {
        Matrix::new(format, &packed, outputs, inputs)
    }

    fn pages(&self, shape: &AttentionShape, blocks: usize) -> Result<Pages, OpsError> {
        Pages::new(shape, blocks)
    }

    fn embed(&mut self, table: &Matrix, tokens: &[u32], out: &mut Tensor) {
        rows::embed(table, tokens, out);
    }

    fn rms_norm(&mut self, x: &Tensor, weight: &[f32], eps: f32, out: &mut Tensor) {
        norm::rms_norm(x, weight, eps, out);
    }

    fn matmul(&mut self, weights: &[&Matrix], x: &Tensor, precision: InputPrecision, out: &mut Tensor) {
        matmul::matmul(weights, x, precision, out);
    }

    fn rope(
        &mut self,
        table: &RopeTable,
        positions: &[u32],
        x: &mut Tensor,
        first_column: usize,
        heads: usize,
        head_dim: usize,
    ) {
        rope::rope(
            table,
            positions,
            x,
            rope::Heads {
                first_column,
                heads,
                head_dim,
            },
        );
    }

    fn append_kv(
        &mut self,
        shape: &AttentionShape,
        batch: &Batch,
        qkv: &Tensor,
        k_column: usize,
        v_column: usize,
        pages: &mut Pages,
    ) {
        attention::append_kv(shape, batch, qkv, [k_column, v_column], pages);
    }

    fn attention(
        &mut self,
        shape: &AttentionShape,
        batch: &Batch,
        qkv: &Tensor,
        pages: &Pages,
        out: &mut Tensor,
    ) {
        attention::attention(shape, batch, qkv, pages, out);
    }

    fn silu_mul(&mut self, x: &Tensor, out: &mut Tensor) {
        act::silu_mul(x, out);
    }

    fn add(&mut self, x: &mut Tensor, y: &Tensor) {
        rows::add(x, y);
    }

    fn gather_rows(&mut self, x: &Tensor, rows: &[u32], out: &mut Tensor) {
        rows::gather_rows(x, rows, out);
    }

    fn zero_blocks(&mut self, pages: &mut Pages, blocks: &[u32]) {
        pages.zero_blocks(blocks);
    }
}
