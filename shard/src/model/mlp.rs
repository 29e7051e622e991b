use super::LoadError;
use super::cut::Cut;
use super::decoder::Context;
use super::gathered::{Gathered, workspace};
use super::linear::Linear;
use super::precision;
use super::weights::Weights;
use crate::exchange::{Exchange, Lost};
use kernels::Ops;

/// Normalised input → gate and up → `silu(gate) · up` → down.
pub struct Mlp<O: Ops> {
    norm: Vec<f32>,
    gate: Linear<O>,
    up: Linear<O>,
    down: Linear<O>,
}

/// What the MLP works in; one for all layers.
pub struct MlpRoom<O: Ops> {
    /// This rank's columns of gate, then of up.
    gate_up: O::Tensor,
    activated: Gathered<O>,
}

impl<O: Ops> Mlp<O> {
    pub fn load(weights: &mut Weights<'_, '_, O>, layer: usize) -> Result<Self, LoadError> {
        let (cut, rank) = (weights.cut, weights.rank);
        let name = |part: &str| format!("blk.{layer}.ffn_{part}.weight");
        Ok(Mlp {
            norm: weights.vector(&name("norm"))?,
            gate: weights.matrix(&name("gate"), &cut.feed_forward[rank])?,
            up: weights.matrix(&name("up"), &cut.feed_forward[rank])?,
            down: weights.matrix(&name("down"), &cut.hidden[rank])?,
        })
    }

    /// Reads `residual`; this rank's columns of the result are left in `context.projected`.
    pub fn forward<X: Exchange>(
        &self,
        context: &mut Context<'_, O, X>,
        room: &mut MlpRoom<O>,
    ) -> Result<(), Lost> {
        let ops = &mut *context.ops;
        ops.rms_norm(context.residual, &self.norm, context.epsilon, context.normed);
        let linears = [&self.gate, &self.up];
        Linear::multiply(
            ops,
            linears,
            context.normed,
            precision::GATE_UP,
            &mut room.gate_up,
        );
        ops.silu_mul(&room.gate_up, room.activated.own());
        let activated = room.activated.gather(ops, context.exchange)?;
        Linear::multiply(
            ops,
            [&self.down],
            activated,
            precision::DOWN,
            context.projected.own(),
        );
        Ok(())
    }
}

impl<O: Ops> MlpRoom<O> {
    pub fn new(ops: &O, cut: &Cut, rank: usize, rows_max: usize) -> Result<Self, LoadError> {
        Ok(MlpRoom {
            gate_up: workspace(ops, rows_max, 2 * cut.feed_forward[rank].len())?,
            activated: Gathered::new(ops, rows_max, cut.feed_forward.clone(), rank)?,
        })
    }

    pub fn set_rows(&mut self, ops: &O, rows: usize) {
        ops.set_rows(&mut self.gate_up, rows);
        self.activated.set_rows(ops, rows);
    }
}
