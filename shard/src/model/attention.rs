use super::LoadError;
use super::cut::Cut;
use super::decoder::Context;
use super::gathered::{Gathered, workspace};
use super::linear::Linear;
use super::precision;
use super::weights::Weights;
use crate::exchange::{Exchange, Lost};
use kernels::Ops;

/// Normalised input → queries, keys, values → rotated, stored, attended to → projected.
pub struct Attention<O: Ops> {
    norm: Vec<f32>,
    query: Linear<O>,
    key: Linear<O>,
    value: Linear<O>,
    output: Linear<O>,
}

/// What attention works in; one for all layers.
pub struct AttentionRoom<O: Ops> {
    /// This rank's query heads, then its keys, then its values.
    qkv: O::Tensor,
    attended: Gathered<O>,
}

impl<O: Ops> Attention<O> {
    pub fn load(weights: &mut Weights<'_, '_, O>, layer: usize) -> Result<Self, LoadError> {
        let (cut, rank) = (weights.cut, weights.rank);
        let keys = cut.keys(rank);
        let name = |part: &str| format!("blk.{layer}.attn_{part}.weight");
        Ok(Attention {
            norm: weights.vector(&name("norm"))?,
            query: weights.matrix(&name("q"), &cut.queries()[rank])?,
            key: weights.matrix(&name("k"), &keys)?,
            value: weights.matrix(&name("v"), &keys)?,
            output: weights.matrix(&name("output"), &cut.hidden[rank])?,
        })
    }

    /// Reads `residual`; this rank's columns of the result are left in `context.projected`.
    pub fn forward<X: Exchange>(
        &self,
        context: &mut Context<'_, O, X>,
        room: &mut AttentionRoom<O>,
        pages: &mut O::Pages,
    ) -> Result<(), Lost> {
        let Context {
            ops,
            pass,
            shape,
            rope,
            ..
        } = context;
        let (keys_from, values_from) = (
            shape.heads * shape.head_dim,
            (shape.heads + shape.kv_heads) * shape.head_dim,
        );
        ops.rms_norm(context.residual, &self.norm, context.epsilon, context.normed);
        Linear::multiply(
            *ops,
            [&self.query, &self.key, &self.value],
            context.normed,
            precision::QUERY_KEY_VALUE,
            &mut room.qkv,
        );
        // Keys follow queries, so they are simply more heads to rotate.
        let heads = shape.heads + shape.kv_heads;
        ops.rope(rope, &pass.positions, &mut room.qkv, 0, heads, shape.head_dim);
        ops.append_kv(shape, &pass.batch, &room.qkv, keys_from, values_from, pages);
        ops.attention(shape, &pass.batch, &room.qkv, pages, room.attended.own());
        let attended = room.attended.gather(*ops, context.exchange)?;
        Linear::multiply(
            *ops,
            [&self.output],
            attended,
            precision::ATTENTION_OUTPUT,
            context.projected.own(),
        );
        Ok(())
    }
}

impl<O: Ops> AttentionRoom<O> {
    pub fn new(ops: &O, cut: &Cut, rank: usize, rows_max: usize) -> Result<Self, LoadError> {
        let columns = cut.queries()[rank].len() + 2 * cut.keys(rank).len();
        Ok(AttentionRoom {
            qkv: workspace(ops, rows_max, columns)?,
            attended: Gathered::new(ops, rows_max, cut.queries(), rank)?,
        })
    }

    pub fn set_rows(&mut self, ops: &O, rows: usize) {
        ops.set_rows(&mut self.qkv, rows);
        self.attended.set_rows(ops, rows);
    }
}
