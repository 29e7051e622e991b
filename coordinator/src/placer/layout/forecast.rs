//! How fast a layout will be.
//!
//! As many micro-batches are on their way as there are stages. A step of a stage takes as long as [`Sizes::step_ns`] says, a
//! hop its bytes over the link and half a round trip, and the sampled tokens go back to the first stage in half a round
//! trip. A round lasts as long as one micro-batch needs for all of it, or as the slowest stage needs for all micro-batches.
//! Streams have the usual context behind them. Prompts are cut as the engine cuts them, in whole tiles, so that no step is
//! longer than it lets one be; one that comes alone also into as many parts as there are stages.

use super::cut::Part;
use super::sizes::{Sizes, TILE_TOKENS, Work, nanoseconds};
use crate::engine::{PROMPT_STEP_MAX, STEP_ROOM_LEAST, STEP_TOKENS_MAX, prompt_step_through};
use proto::Span;
use proto::cluster::Prediction;

/// Of the prompt that a prediction is made for.
pub const PROMPT_TOKENS: u64 = 512;
/// The engine cuts prompts no finer, however slow a step is.
pub const STEP_TOKENS_LEAST: u64 = 16;

/// So many times as fast as expected a replica may be without being held up by steps that are too short.
const MARGIN: u64 = 2;

pub struct Forecast<'a> {
    sizes: &'a Sizes<'a>,
    parts: &'a [Part<'a>],
}

/// What one unit of work costs on its way through all stages.
struct Pass {
    /// All stages and hops, there and back.
    round_ns: u64,
    /// The slowest stage or link.
    slowest_ns: u64,
    /// All stages without the hops.
    busy_ns: u64,
}

/// All streams together make one token each.
struct Round {
    period_ns: u64,
    micro_batches: u64,
    busy_ns: u64,
}

impl<'a> Forecast<'a> {
    pub fn new(sizes: &'a Sizes<'a>, parts: &'a [Part<'a>]) -> Forecast<'a> {
        Forecast { sizes, parts }
    }

    /// As if the cache held all streams.
    pub fn prediction(&self) -> Prediction {
        let decode = |streams| per_sec_millis(streams, self.decode(streams).period_ns);
        Prediction {
            decode_1_millitokens_per_sec: decode(1),
            decode_16_millitokens_per_sec: decode(16),
            decode_128_millitokens_per_sec: decode(128),
            prefill_millitokens_per_sec: per_sec_millis(PROMPT_TOKENS, self.prompt_ns()),
            first_token_micros: self.first_token_ns() / 1000,
            bubble_per_mille: self.bubble_per_mille(128),
        }
    }

    fn stages(&self) -> u64 {
        self.parts.len() as u64
    }

    fn decode(&self, streams: u64) -> Round {
        let micro_batches = self.stages().min(streams);
        let pass = self.pass(Work::decode(streams.div_ceil(micro_batches)));
        Round {
            period_ns: pass.round_ns.max(pass.slowest_ns.saturating_mul(micro_batches)),
            micro_batches,
            busy_ns: pass.busy_ns,
        }
    }

    /// Of one prompt among many: stages are at work on others meanwhile.
    fn prompt_ns(&self) -> u64 {
        let parts = prompt_parts(self.prompt_steps());
        let slowest = parts.map(|work| self.pass(work).slowest_ns);
        slowest.fold(0, u64::saturating_add)
    }

    /// So many steps a prompt takes that are no longer than the engine lets them be.
    fn prompt_steps(&self) -> u64 {
        let whole_ns = self.pass(Work::prefill(0..PROMPT_TOKENS, PROMPT_TOKENS)).busy_ns;
        whole_ns
            .div_ceil(self.prompt_step_max().0)
            .clamp(1, PROMPT_TOKENS / STEP_TOKENS_LEAST)
    }

    /// The longest steps that the engine will ask for, also where all is twice as fast as expected.
    pub fn step_tokens_max(&self) -> u32 {
        let span_ns = self.prompt_step_max().0 * MARGIN;
        self.step_tokens_in(span_ns).max(STEP_ROOM_LEAST)
    }

    /// So many tokens of a prompt are expected to take no longer than the engine lets a step be, in whole tiles; 0: not even
    /// the fewest.
    pub fn step_tokens_expected(&self) -> u32 {
        self.step_tokens_in(self.prompt_step_max().0)
    }

    /// How long the engine lets a step of a prompt be, over all stages.
    pub fn prompt_step_max(&self) -> Span {
        let stages = u32::try_from(self.stages()).unwrap_or(u32::MAX);
        prompt_step_through(stages, PROMPT_STEP_MAX)
    }

    fn step_tokens_in(&self, span_ns: u64) -> u32 {
        let tiles = (1..=STEP_TOKENS_MAX / TILE_TOKENS).rev();
        let fits = |tokens: &u32| {
            let tokens = u64::from(*tokens);
            self.pass(Work::prefill(0..tokens, u64::MAX)).busy_ns <= span_ns
        };
        let longest = tiles.map(|tiles| tiles * TILE_TOKENS).find(fits);
        longest.unwrap_or(0)
    }

    /// Of a prompt that comes alone. A stage begins a part when it has the rows from the stage before, and is done with the
    /// part before.
    fn first_token_ns(&self) -> u64 {
        let stages = self.parts.len();
        let mut done_ns = vec![0_u64; stages];
        for work in prompt_parts(self.prompt_steps().max(self.stages())) {
            let mut arrived_ns = 0_u64;
            for (stage, done_ns) in done_ns.iter_mut().enumerate() {
                let Part { device, layers } = &self.parts[stage];
                let step_ns = self.sizes.step_ns(device, layers, work);
                *done_ns = arrived_ns.max(*done_ns).saturating_add(step_ns);
                if stage + 1 < stages {
                    let moved_ns = done_ns.saturating_add(self.move_ns(stage, work.tokens));
                    arrived_ns = moved_ns.saturating_add(self.wait_ns(stage, stage + 1));
                }
            }
        }
        done_ns[stages - 1].saturating_add(self.wait_ns(stages - 1, 0))
    }

    fn bubble_per_mille(&self, streams: u64) -> u32 {
        let round = self.decode(streams);
        let there = u128::from(round.period_ns) * u128::from(self.stages());
        let busy = u128::from(round.busy_ns) * u128::from(round.micro_batches);
        let idle = there.saturating_sub(busy) * 1000;
        u32::try_from(idle / there.max(1)).unwrap_or(1000)
    }

    fn pass(&self, work: Work) -> Pass {
        let steps: Vec<u64> = self
            .parts
            .iter()
            .map(|part| self.sizes.step_ns(part.device, &part.layers, work))
            .collect();
        let hops = 0..self.parts.len() - 1;
        let moves: Vec<u64> = hops.clone().map(|hop| self.move_ns(hop, work.tokens)).collect();
        let waits: u64 = hops
            .map(|hop| self.wait_ns(hop, hop + 1))
            .fold(0, u64::saturating_add);
        let back_ns = self.wait_ns(self.parts.len() - 1, 0);
        let sum = |times: &[u64]| times.iter().copied().fold(0, u64::saturating_add);
        let slowest = steps.iter().chain(&moves).copied().max();
        Pass {
            round_ns: sum(&[sum(&steps), sum(&moves), waits, back_ns]),
            slowest_ns: slowest.unwrap_or(0),
            busy_ns: sum(&steps),
        }
    }

    /// The rows of so many positions, from this stage to the next.
    pub fn move_ns(&self, hop: usize, tokens: u64) -> u64 {
        let link = self.parts[hop].device.link_to(self.parts[hop + 1].device);
        let bytes = u128::from(self.sizes.row_bytes()) * u128::from(tokens);
        nanoseconds(bytes, link.bytes_per_sec)
    }

    /// Half a round trip.
    pub fn wait_ns(&self, from: usize, to: usize) -> u64 {
        match from == to {
            true => 0,
            false => {
                self.parts[from]
                    .device
                    .link_to(self.parts[to].device)
                    .round_trip_ns
                    / 2
            }
        }
    }
}

/// A prompt in so many steps.
fn prompt_parts(steps: u64) -> impl Iterator<Item = Work> {
    let cut = move |step: u64| PROMPT_TOKENS * step / steps;
    (0..steps).map(move |step| Work::prefill(cut(step)..cut(step + 1), PROMPT_TOKENS))
}

fn per_sec_millis(tokens: u64, period_ns: u64) -> u64 {
    let millis = u128::from(tokens) * 1_000_000_000_000 / u128::from(period_ns.max(1));
    u64::try_from(millis).unwrap_or(u64::MAX)
}
