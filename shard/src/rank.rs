use crate::exchange::{Exchange, Lost};
use crate::kv::KvPool;
use crate::model::decoder::LOGIT_ROWS_MAX;
use crate::model::{Cut, Decoder, LoadError, ModelConfig, Room, WeightSource, Weights};
use crate::sample::{Sampler, score};
use crate::stage::Stage;
use crate::step::{LogitRow, Pass, Purpose, StepInput, StepOutput};
use kernels::Ops;

/// What a rank is to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    pub stage: Stage,
    /// Pages of KV cache in every layer of the stage.
    pub blocks: u32,
    /// Positions in a page.
    pub block_tokens: u32,
    /// Rows that are computed at once: what there is room for.
    pub pass_rows_max: u32,
}

/// One rank of a replica: its part of the weights and of the KV bytes. Told what to compute; it never chooses.
pub struct Rank<O: Ops, X: Exchange> {
    ops: O,
    exchange: X,
    decoder: Decoder<O>,
    room: Room<O>,
    kv: KvPool<O>,
    sampler: Sampler,
    stage: Stage,
    hidden: usize,
    vocabulary: usize,
}

impl<O: Ops, X: Exchange> Rank<O, X> {
    /// Packs this rank's part of the weights and allocates its pages.
    pub fn load(
        ops: O,
        exchange: X,
        source: &mut WeightSource<'_>,
        config: &ModelConfig,
        share: &Share,
    ) -> Result<Self, LoadError> {
        let (stage, block_tokens) = (&share.stage, share.block_tokens as usize);
        let (rank, ranks) = (exchange.rank(), exchange.ranks());
        let too_many = LoadError::TooManyRanks {
            ranks,
            heads: config.heads,
        };
        let cut = &Cut::new(config, ranks).ok_or(too_many)?;
        let room = Room::new(&ops, config, cut, rank, share.pass_rows_max as usize)?;
        let kv = KvPool::new(
            &ops,
            &cut.attention(rank, block_tokens),
            stage.layers().len(),
            share.blocks,
        )?;
        let positions = (share.blocks as usize * block_tokens).min(config.context_tokens_max as usize);
        let mut weights = Weights {
            ops: &ops,
            source,
            cut,
            rank,
            loaded: 0,
        };
        let decoder = Decoder::load(&mut weights, config, stage, block_tokens, positions)?;
        Ok(Rank {
            decoder,
            room,
            kv,
            sampler: Sampler::default(),
            stage: stage.clone(),
            hidden: config.hidden,
            vocabulary: config.vocabulary,
            ops,
            exchange,
        })
    }

    /// Computes one step together with the other ranks. All tokens must be in the vocabulary, and all positions below
    /// the context and the cache's size; no pass has more rows than there is room for; after the first stage, the residual has a row for each.
    pub fn step(&mut self, input: &StepInput) -> Result<StepOutput, Lost> {
        self.kv.zero(&mut self.ops, &input.zero);
        let mut output = StepOutput::default();
        let mut carried = input.residual.as_slice();
        for pass in &input.passes {
            let own = match self.stage.embeds() {
                true => &[],
                false => carried
                    .split_off(..pass.positions.len() * self.hidden)
                    .expect("the residual has all rows of the step"),
            };
            self.decoder.forward(
                &mut self.ops,
                &mut self.exchange,
                pass,
                own,
                &mut self.room,
                &mut self.kv,
            )?;
            self.hand_on(pass, &mut output)?;
        }
        Ok(output)
    }

    /// To whoever samples, or to the next stage.
    fn hand_on(&mut self, pass: &Pass, output: &mut StepOutput) -> Result<(), Lost> {
        if self.stage.samples() {
            return self.read_logits(pass, output);
        }
        if self.exchange.rank() == 0 {
            output.residual.extend_from_slice(self.room.residual(&self.ops));
        }
        Ok(())
    }

    fn read_logits(&mut self, pass: &Pass, output: &mut StepOutput) -> Result<(), Lost> {
        for wanted in pass.logits.chunks(LOGIT_ROWS_MAX) {
            let rows: Vec<u32> = wanted.iter().map(|wanted| wanted.row).collect();
            let logits = self
                .decoder
                .logits(&mut self.ops, &mut self.exchange, &rows, &mut self.room)?;
            if self.exchange.rank() == 0 {
                let logits = logits.chunks_exact(self.vocabulary);
                for (wanted, logits) in wanted.iter().zip(logits) {
                    answer(&mut self.sampler, wanted, logits, output);
                }
            }
        }
        Ok(())
    }
}

fn answer(sampler: &mut Sampler, wanted: &LogitRow, logits: &[f32], output: &mut StepOutput) {
    match &wanted.purpose {
        Purpose::Score { token, top } => {
            output.add_prompt_score(wanted.sequence, score(logits, *token, *top))
        }
        Purpose::Sample(request) => {
            output
                .sampled
                .push((wanted.sequence, sampler.choose(request, logits)));
        }
    }
}
