//! What a run of layers takes of a node's memory and time.

use super::Device;
use super::pace::{Rows, attention_ns, product_ns};
use crate::engine::{STEP_ROOM_LEAST, STEP_TOKENS_MAX};
use proto::cluster::{ModelShape, ProductKind};
use std::collections::BTreeMap;
use std::ops::Range;

/// A longer context than this is not insisted on: a replica whose cache is shorter than its model's context serves
/// shorter sequences.
const CONTEXT_TOKENS_DUE: u32 = 8192;
/// Beyond this much KV cache a replica is not made richer: 64 sequences of 2,048 tokens.
const CACHE_TOKENS_WANTED: u64 = 64 * 2048;
/// Of the memory that is left after weights and workspace, the cache takes at most one part in this many.
const CACHE_SHARE: u64 = 4;
/// What a step costs a stage before it has computed anything: waking threads, frames in and out.
const STEP_FIXED_NS: u64 = 100_000;

/// Steps are reckoned in tiles of so many tokens, which is as fine as it needs to be; on devices that multiply single rows engines cut
/// them anywhere.
pub const TILE_TOKENS: u32 = 16;

/// What streams are taken to have behind them, on average.
pub const CONTEXT_TOKENS_USUAL: u64 = 512;

/// What one step has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// Positions to compute.
    pub tokens: u64,
    /// Of which so many go through the output matrix.
    pub outputs: u64,
    /// Pairs of a position to compute and one that it sees.
    pub seen: u64,
    pub rows: Rows,
}

impl Work {
    /// One position of each of so many streams.
    pub fn decode(streams: u64) -> Work {
        Work {
            tokens: streams,
            outputs: streams,
            seen: streams * CONTEXT_TOKENS_USUAL,
            rows: Rows::OfStreams,
        }
    }

    /// These positions of a prompt of so many. After its last one something is sampled.
    pub fn prefill(positions: Range<u64>, prompt_tokens: u64) -> Work {
        let tokens = positions.end - positions.start;
        Work {
            tokens,
            outputs: u64::from(positions.end == prompt_tokens),
            seen: positions.start * tokens + tokens * (tokens + 1) / 2,
            rows: Rows::OfPrompt,
        }
    }
}

/// What a replica has room for besides its weights, the same on every stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Of KV cache.
    pub blocks: u32,
    /// Rows of a step at most.
    pub step_tokens_max: u32,
}

/// A model's shape, prepared for asking about any run of its layers.
pub struct Sizes<'a> {
    shape: &'a ModelShape,
    ranks: u32,
    /// Of all layers before each, and of all.
    bytes_before: Vec<u64>,
    /// Of all layers before each, and of all: parameters that rows are multiplied with.
    weights_before: BTreeMap<ProductKind, Vec<u64>>,
    room_least: Room,
}

impl<'a> Sizes<'a> {
    pub fn new(shape: &'a ModelShape, ranks: u32) -> Sizes<'a> {
        Sizes {
            shape,
            ranks,
            bytes_before: sums(shape.layer_weight_bytes.iter().copied()),
            weights_before: weights_before(shape),
            room_least: Room {
                blocks: blocks_least(shape),
                step_tokens_max: STEP_ROOM_LEAST,
            },
        }
    }

    /// For a replica that is to keep this room wherever its layers go.
    pub fn with_room(self, room: Room) -> Sizes<'a> {
        Sizes {
            room_least: room,
            ..self
        }
    }

    pub fn ranks(&self) -> u32 {
        self.ranks
    }

    pub fn layers(&self) -> u32 {
        self.bytes_before.len() as u32 - 1
    }

    pub fn block_tokens(&self) -> u32 {
        self.shape.block_tokens
    }

    /// What a stage with these layers computes in, and its process. All of it is planned for; the operating system gives pages
    /// as they are used, so what is taken is less where steps are shorter or fewer rows have logits.
    pub fn workspace_bytes(&self, layers: &Range<u32>, room: Room) -> u64 {
        let neighbours = u64::from(layers.start > 0) + u64::from(!self.is_last(layers));
        let workspace = &self.shape.workspace;
        let logits = match self.is_last(layers) {
            true => workspace.logit_row.on(self.ranks),
            false => 0,
        };
        logits
            .saturating_mul(u64::from(workspace.logit_rows_max))
            .saturating_add(self.inner_bytes(neighbours, room))
    }

    /// Of that, all but logits, for a stage that gets rows from its neighbours or hands them on.
    fn inner_bytes(&self, neighbours: u64, room: Room) -> u64 {
        let row = self.step_row_bytes(neighbours);
        let held = u64::from(room.blocks) * u64::from(self.shape.block_tokens);
        let positions = held.min(u64::from(self.shape.context_tokens_max));
        let position_bytes = self.shape.position_bytes.saturating_mul(u64::from(self.ranks));
        row.saturating_mul(u64::from(room.step_tokens_max))
            .saturating_add(position_bytes.saturating_mul(positions))
            .saturating_add(self.shape.common_bytes)
    }

    fn step_row_bytes(&self, neighbours: u64) -> u64 {
        let moved = self.row_bytes().saturating_mul(neighbours);
        self.shape.workspace.row.on(self.ranks).saturating_add(moved)
    }

    /// Of one row on its way to the next stage.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.shape.hidden) * 4
    }

    /// With less than this a replica is not made.
    pub fn room_least(&self) -> Room {
        self.room_least
    }

    /// The longest steps for which a stage with these layers has room beside the least of caches; at least as long as in
    /// [`Sizes::room_least`], which is taken to fit.
    pub fn step_tokens_within(&self, layers: &Range<u32>, memory_bytes: u64) -> u32 {
        let least = self.room_least();
        let left = memory_bytes.saturating_sub(self.memory_bytes(layers, least));
        let row = self.step_row_bytes(2).max(1);
        let more = (left / row).min(u64::from(STEP_TOKENS_MAX)) as u32;
        (least.step_tokens_max + more / TILE_TOKENS * TILE_TOKENS).min(STEP_TOKENS_MAX)
    }

    /// One full context, or 8,192 tokens where it is longer.
    pub fn blocks_least(&self) -> u32 {
        blocks_least(self.shape)
    }

    /// A quarter of what the layers leave of `memory_bytes`; at least [`Sizes::blocks_least`], at most one full context or
    /// 64 sequences of 2,048 tokens, whichever is more.
    pub fn blocks_within(&self, layers: &Range<u32>, memory_bytes: u64, step_tokens_max: u32) -> u32 {
        let block_tokens = u64::from(self.shape.block_tokens.max(1));
        let wanted = CACHE_TOKENS_WANTED.max(u64::from(self.shape.context_tokens_max)) / block_tokens;
        let empty = Room {
            blocks: 0,
            step_tokens_max,
        };
        let left = memory_bytes.saturating_sub(self.memory_bytes(layers, empty));
        let affordable = left / CACHE_SHARE / self.block_bytes(layers).max(1);
        u32::try_from(affordable.min(wanted))
            .unwrap_or(u32::MAX)
            .max(self.blocks_least())
    }

    /// Of one block of KV cache. A KV head that query heads of two ranks read stands on both.
    pub fn block_bytes(&self, layers: &Range<u32>) -> u64 {
        let kv_heads = u64::from(self.shape.kv_heads.max(1));
        self.shape
            .kv_bytes_per_token_layer
            .saturating_mul(u64::from(self.shape.block_tokens))
            .saturating_mul(u64::from(layers.end - layers.start))
            .saturating_mul(self.kv_heads_held())
            .div_ceil(kv_heads)
    }

    /// By all ranks together: query heads are dealt out as evenly as whole heads allow.
    fn kv_heads_held(&self) -> u64 {
        let heads = u64::from(self.shape.heads.max(1));
        let ranks = u64::from(self.ranks);
        let heads_per_kv = (heads / u64::from(self.shape.kv_heads.max(1))).max(1);
        let held = |rank: u64| {
            let (start, end) = (heads * rank / ranks, heads * (rank + 1) / ranks);
            end.div_ceil(heads_per_kv) - start / heads_per_kv
        };
        (0..ranks).map(held).sum()
    }

    /// That lie in the memory of a stage with these layers.
    pub fn weight_bytes(&self, layers: &Range<u32>) -> u64 {
        let embedding_bytes = match layers.start {
            // Every rank holds all of it.
            0 => self.shape.embedding_bytes.saturating_mul(u64::from(self.ranks)),
            _ => 0,
        };
        let twice_bytes = match layers.start == 0 && self.is_last(layers) && self.ranks == 1 {
            true => self.shape.tied_bytes,
            false => 0,
        };
        self.read_bytes(layers)
            .saturating_add(embedding_bytes)
            .saturating_sub(twice_bytes)
    }

    /// That every step reads. Of the embeddings it reads only single rows.
    fn read_bytes(&self, layers: &Range<u32>) -> u64 {
        let of_layers = self.bytes_before[layers.end as usize] - self.bytes_before[layers.start as usize];
        match self.is_last(layers) {
            true => of_layers.saturating_add(self.shape.head_bytes),
            false => of_layers,
        }
    }

    /// Weights, cache and workspace.
    pub fn memory_bytes(&self, layers: &Range<u32>, room: Room) -> u64 {
        let cache_bytes = self.block_bytes(layers).saturating_mul(u64::from(room.blocks));
        self.weight_bytes(layers)
            .saturating_add(cache_bytes)
            .saturating_add(self.workspace_bytes(layers, room))
    }

    /// Of the whole model with the least of room, over so many stages.
    pub fn memory_bytes_over(&self, stages: u64) -> u64 {
        let (room, more) = (self.room_least(), stages.saturating_sub(1));
        let tied_bytes = match more > 0 && self.ranks == 1 {
            true => self.shape.tied_bytes,
            false => 0,
        };
        // Every cut makes two neighbours.
        let more_workspaces = self.inner_bytes(2, room).saturating_mul(more);
        self.memory_bytes(&(0..self.layers()), room)
            .saturating_add(tied_bytes)
            .saturating_add(more_workspaces)
    }

    /// Products, attention, and what every step costs.
    pub fn step_ns(&self, device: &Device, layers: &Range<u32>, work: Work) -> u64 {
        let products = self.products(layers, work);
        let products_ns = products.map(|(kind, weights, rows)| product_ns(device, kind, weights, rows));
        products_ns
            .fold(STEP_FIXED_NS, u64::saturating_add)
            .saturating_add(self.attention_ns(device, layers, work))
    }

    /// What is multiplied with how many rows. The output matrix comes by itself, after the layers.
    pub fn products(
        &self,
        layers: &Range<u32>,
        work: Work,
    ) -> impl Iterator<Item = (ProductKind, u64, u64)> + '_ {
        let (start, end) = (layers.start as usize, layers.end as usize);
        let of_layers = self.weights_before.iter();
        let of_head = self.is_last(layers).then_some(&self.shape.head_products);
        of_layers
            .map(move |(kind, before)| (*kind, before[end] - before[start], work.tokens))
            .chain(of_head.map(|head| (head.kind, head.weights, work.outputs)))
    }

    pub fn attention_ns(&self, device: &Device, layers: &Range<u32>, work: Work) -> u64 {
        let row = u128::from(self.shape.heads) * u128::from(self.shape.head_dim);
        // One multiplication with a key, one with a value.
        let multiplications = (2 * row).saturating_mul(u128::from(work.seen));
        let of_layers = multiplications.saturating_mul(u128::from(layers.end - layers.start));
        attention_ns(device, self.shape.kv_cache, work.rows, of_layers)
    }

    fn is_last(&self, layers: &Range<u32>) -> bool {
        layers.end == self.layers()
    }
}

fn blocks_least(shape: &ModelShape) -> u32 {
    let due = shape.context_tokens_max.min(CONTEXT_TOKENS_DUE);
    due.div_ceil(shape.block_tokens.max(1)).max(1)
}

/// Of everything before each, and of all.
fn sums(amounts: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut sums = vec![0_u64];
    for amount in amounts {
        sums.push(sums[sums.len() - 1].saturating_add(amount));
    }
    sums
}

fn weights_before(shape: &ModelShape) -> BTreeMap<ProductKind, Vec<u64>> {
    let all = || shape.layer_products.iter().flatten();
    let kinds = all().map(|products| (products.kind, ()));
    let of_kind = |kind: ProductKind| {
        let layers = (0..shape.layer_weight_bytes.len()).map(move |layer| {
            let products = shape.layer_products.get(layer).into_iter().flatten();
            let same = products.filter(|products| products.kind == kind);
            same.map(|products| products.weights).fold(0, u64::saturating_add)
        });
        sums(layers)
    };
    kinds
        .collect::<BTreeMap<_, _>>()
        .into_keys()
        .map(|kind| (kind, of_kind(kind)))
        .collect()
}

/// How long so much takes at this rate, rounded up; nothing ever comes of a rate of zero.
pub fn nanoseconds(amount: u128, per_sec: u64) -> u64 {
    if amount == 0 {
        return 0;
    }
    match per_sec {
        0 => u64::MAX,
        _ => {
            let wait = amount.saturating_mul(1_000_000_000).div_ceil(u128::from(per_sec));
            u64::try_from(wait).unwrap_or(u64::MAX)
        }
    }
}
