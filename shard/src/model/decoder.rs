use super::attention::{Attention, AttentionRoom};
use super::collected::Collected;
use super::cut::Cut;
use super::gathered::{Gathered, workspace};
use super::linear::Linear;
use super::mlp::{Mlp, MlpRoom};
use super::weights::Weights;
use super::{LoadError, ModelConfig, precision, rope};
use crate::exchange::{Exchange, Lost};
use crate::kv::KvPool;
use crate::stage::Stage;
use crate::step::Pass;
use kernels::{AttentionShape, Ops, RopeTable};

/// Rows whose logits are computed at once. Bounds what scoring a long prompt takes.
pub const LOGIT_ROWS_MAX: usize = 64;

/// A rank's part of a stage of a Llama-like decoder.
pub struct Decoder<O: Ops> {
    /// `None`: an earlier stage embeds.
    embedding: Option<Linear<O>>,
    layers: Vec<Layer<O>>,
    /// `None`: a later stage makes logits.
    head: Option<Head<O>>,
    rope: RopeTable,
    shape: AttentionShape,
    epsilon: f32,
}

/// What makes logits of the last layer's output.
struct Head<O: Ops> {
    norm: Vec<f32>,
    /// `None`: this rank holds the whole embedding table anyway, and computes all logits with it.
    output: Option<Linear<O>>,
}

struct Layer<O: Ops> {
    attention: Attention<O>,
    mlp: Mlp<O>,
}

/// What a decoder works in, reused from pass to pass.
pub struct Room<O: Ops> {
    residual: O::Tensor,
    normed: O::Tensor,
    projected: Gathered<O>,
    attention: AttentionRoom<O>,
    mlp: MlpRoom<O>,
    chosen: O::Tensor,
    chosen_normed: O::Tensor,
    logits: Collected<O>,
}

/// What the parts of a layer share during one pass.
pub struct Context<'a, O: Ops, X> {
    pub ops: &'a mut O,
    pub exchange: &'a mut X,
    pub pass: &'a Pass,
    pub shape: &'a AttentionShape,
    pub rope: &'a RopeTable,
    pub epsilon: f32,
    pub residual: &'a mut O::Tensor,
    pub normed: &'a mut O::Tensor,
    pub projected: &'a mut Gathered<O>,
}

impl<O: Ops> Decoder<O> {
    /// `positions` is the longest sequence this replica can hold.
    pub fn load(
        weights: &mut Weights<'_, '_, O>,
        config: &ModelConfig,
        stage: &Stage,
        block_tokens: usize,
        positions: usize,
    ) -> Result<Self, LoadError> {
        let embedding = match stage.embeds() {
            true => Some(weights.matrix("token_embd.weight", &(0..config.vocabulary))?),
            false => None,
        };
        let layers = stage
            .layers()
            .map(|layer| Layer::load(weights, layer))
            .collect::<Result<_, _>>()?;
        let head = match stage.samples() {
            true => Some(Head::load(weights, config, stage)?),
            false => None,
        };
        Ok(Decoder {
            embedding,
            layers,
            head,
            rope: rope::table(&config.rope, positions),
            shape: weights.cut.attention(weights.rank, block_tokens),
            epsilon: config.norm_epsilon,
        })
    }

    /// Computes all rows of `pass` and their KV; leaves the last layer's output in `room`. `carried` are these rows as
    /// the stage before has left them, and is not looked at in the first one.
    ///
    /// # Panics
    /// When `carried` has other rows than the pass.
    pub fn forward<X: Exchange>(
        &self,
        ops: &mut O,
        exchange: &mut X,
        pass: &Pass,
        carried: &[f32],
        room: &mut Room<O>,
        kv: &mut KvPool<O>,
    ) -> Result<(), Lost> {
        room.set_rows(ops, pass.positions.len());
        match &self.embedding {
            Some(embedding) => embedding.embed(ops, &pass.tokens, &mut room.residual),
            None => ops.write(&mut room.residual, carried),
        }
        let mut context = Context {
            ops,
            exchange,
            pass,
            shape: &self.shape,
            rope: &self.rope,
            epsilon: self.epsilon,
            residual: &mut room.residual,
            normed: &mut room.normed,
            projected: &mut room.projected,
        };
        for (layer, pages) in self.layers.iter().zip(kv.layers()) {
            layer
                .attention
                .forward(&mut context, &mut room.attention, pages)?;
            context.add_projected()?;
            layer.mlp.forward(&mut context, &mut room.mlp)?;
            context.add_projected()?;
        }
        Ok(())
    }

    /// Logits of some rows of the pass just computed, at most [`LOGIT_ROWS_MAX`]: row-major `(rows, vocabulary)`, on the first
    /// rank.
    ///
    /// # Panics
    /// Where a later stage makes logits.
    pub fn logits<'r, X: Exchange>(
        &self,
        ops: &mut O,
        exchange: &mut X,
        rows: &[u32],
        room: &'r mut Room<O>,
    ) -> Result<&'r [f32], Lost> {
        room.set_logit_rows(ops, rows.len());
        let head = self.head.as_ref().expect("only the last stage makes logits");
        let output = head.output.as_ref().or(self.embedding.as_ref());
        let output = output.expect("a stage that makes logits has a matrix for them");
        ops.gather_rows(&room.residual, rows, &mut room.chosen);
        ops.rms_norm(&room.chosen, &head.norm, self.epsilon, &mut room.chosen_normed);
        Linear::multiply(
            ops,
            [output],
            &room.chosen_normed,
            precision::LOGITS,
            room.logits.own(),
        );
        room.logits.collect(ops, exchange)
    }
}

impl<O: Ops> Head<O> {
    fn load(
        weights: &mut Weights<'_, '_, O>,
        config: &ModelConfig,
        stage: &Stage,
    ) -> Result<Self, LoadError> {
        let vocabulary = &weights.cut.vocabulary[weights.rank].clone();
        let output = match (config.tied_embeddings, weights.cut.ranks()) {
            (true, 1) if stage.embeds() => None,
            (true, _) => Some(weights.matrix("token_embd.weight", vocabulary)?),
            (false, _) => Some(weights.matrix("output.weight", vocabulary)?),
        };
        Ok(Head {
            norm: weights.vector("output_norm.weight")?,
            output,
        })
    }
}

impl<O: Ops> Layer<O> {
    fn load(weights: &mut Weights<'_, '_, O>, layer: usize) -> Result<Self, LoadError> {
        Ok(Layer {
            attention: Attention::load(weights, layer)?,
            mlp: Mlp::load(weights, layer)?,
        })
    }
}

impl<O: Ops, X: Exchange> Context<'_, O, X> {
    fn add_projected(&mut self) -> Result<(), Lost> {
        let projected = self.projected.gather(self.ops, self.exchange)?;
        self.ops.add(self.residual, projected);
        Ok(())
    }
}

impl<O: Ops> Room<O> {
    /// For passes of `rows_max`. Pages of it that no pass is long enough to touch are never taken.
    pub fn new(
        ops: &O,
        config: &ModelConfig,
        cut: &Cut,
        rank: usize,
        rows_max: usize,
    ) -> Result<Self, LoadError> {
        let hidden = config.hidden;
        Ok(Room {
            residual: workspace(ops, rows_max, hidden)?,
            normed: workspace(ops, rows_max, hidden)?,
            projected: Gathered::new(ops, rows_max, cut.hidden.clone(), rank)?,
            attention: AttentionRoom::new(ops, cut, rank, rows_max)?,
            mlp: MlpRoom::new(ops, cut, rank, rows_max)?,
            chosen: workspace(ops, LOGIT_ROWS_MAX, hidden)?,
            chosen_normed: workspace(ops, LOGIT_ROWS_MAX, hidden)?,
            logits: Collected::new(ops, LOGIT_ROWS_MAX, cut.vocabulary.clone(), rank)?,
        })
    }

    /// The last layer's output, all rows of the pass: what the next stage goes on with.
    pub fn residual<'r>(&'r self, ops: &O) -> &'r [f32] {
        ops.read(&self.residual)
    }

    fn set_rows(&mut self, ops: &O, rows: usize) {
        ops.set_rows(&mut self.residual, rows);
        ops.set_rows(&mut self.normed, rows);
        self.projected.set_rows(ops, rows);
        self.attention.set_rows(ops, rows);
        self.mlp.set_rows(ops, rows);
    }

    fn set_logit_rows(&mut self, ops: &O, rows: usize) {
        ops.set_rows(&mut self.chosen, rows);
        ops.set_rows(&mut self.chosen_normed, rows);
        self.logits.set_rows(ops, rows);
    }
}
