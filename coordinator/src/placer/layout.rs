//! How a model is laid over nodes: pure, from sizes and measured speeds alone.
//!
//! * As few stages as hold it: every hop costs, and a node that holds it whole needs none.
//! * Layers are cut unevenly, so that the slowest stage is as fast as can be: it sets the pace of all.
//! * Tensor parallelism stays inside a node. Across nodes it is refused, with its arithmetic.

mod again;
mod cut;
mod forecast;
mod no_fit;
mod pace;
mod reasons;
mod sizes;
#[cfg(test)]
mod tests;

pub use again::cut_again;
pub use forecast::{PROMPT_TOKENS, STEP_TOKENS_LEAST};
pub use no_fit::{NoFit, NoRoom};
pub use sizes::CONTEXT_TOKENS_USUAL;
pub use sizes::Room;
pub(super) use sizes::Sizes;

use cut::Part;
use forecast::Forecast;
use proto::NodeId;
use proto::cluster::{LinkProfile, ModelShape, NodeRates, Prediction, StagePlace};

/// Of a link that nobody has measured: a gigabit, and a switch or two.
const LINK_UNMEASURED: LinkProfile = LinkProfile {
    to: NodeId(0),
    bytes_per_sec: 117_000_000,
    round_trip_ns: 500_000,
};

/// A node, as it is offered to a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    pub node: NodeId,
    /// That is free for this model.
    pub memory_bytes: u64,
    pub threads: u32,
    pub rates: NodeRates,
    pub links: Vec<LinkProfile>,
}

/// What people ask for beyond the model itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wishes {
    /// Tensor parallel, inside each node.
    pub ranks: u32,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes { ranks: 1 }
    }
}

/// Where each layer of a model goes, and what comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    pub stages: Vec<StagePlace>,
    pub room: Room,
    pub predicted: Prediction,
    reasons: Vec<String>,
}

impl Layout {
    /// The plan and why it is so, a line each, for people.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    pub(super) fn also(mut self, reason: String) -> Layout {
        self.reasons.push(reason);
        self
    }
}

/// The best layout of a model over some of these devices. The same arguments give the same answer.
pub fn fit(shape: &ModelShape, devices: &[Device], wishes: Wishes) -> Result<Layout, NoFit> {
    if shape.layer_weight_bytes.is_empty() {
        return Err(NoFit::NoLayers);
    }
    let ranks = wishes.ranks.max(1);
    if ranks > shape.heads.max(1) {
        let heads = shape.heads;
        return Err(NoFit::RanksBeyondHeads { ranks, heads });
    }
    if devices.is_empty() {
        return Err(NoFit::NoNodes);
    }
    let able: Vec<&Device> = devices.iter().filter(|device| device.threads >= ranks).collect();
    if able.is_empty() {
        return Err(no_fit::across_hosts(shape, devices, ranks));
    }
    let sizes = Sizes::new(shape, ranks);
    match cut::best(&sizes, &able) {
        Some(parts) => Ok(lay_out(&sizes, &able, &parts)),
        None => Err(NoFit::NoRoom(NoRoom::of(&sizes, &able))),
    }
}

fn lay_out(sizes: &Sizes<'_>, able: &[&Device], parts: &[Part<'_>]) -> Layout {
    let forecast = Forecast::new(sizes, parts);
    let room = room(sizes, parts, &forecast);
    Layout {
        stages: stages(sizes, parts, room),
        room,
        predicted: forecast.prediction(),
        reasons: reasons::lines(sizes, able, parts, room, &forecast),
    }
}

fn stages(sizes: &Sizes<'_>, parts: &[Part<'_>], room: Room) -> Vec<StagePlace> {
    let stage = |part: &Part<'_>| StagePlace {
        node: part.device.node,
        layer_first: part.layers.start,
        layer_end: part.layers.end,
        ranks: sizes.ranks(),
        threads: part.device.threads,
        memory_bytes: sizes.memory_bytes(&part.layers, room),
    };
    parts.iter().map(stage).collect()
}

/// What the tightest stage has room for: steps first, as long as they are expected to be, then cache.
fn room(sizes: &Sizes<'_>, parts: &[Part<'_>], forecast: &Forecast<'_>) -> Room {
    let step_tokens = parts
        .iter()
        .map(|part| sizes.step_tokens_within(&part.layers, part.device.memory_bytes));
    let affordable = step_tokens.min().expect("a layout has stages");
    let step_tokens_max = forecast.step_tokens_max().min(affordable);
    let blocks = parts
        .iter()
        .map(|part| sizes.blocks_within(&part.layers, part.device.memory_bytes, step_tokens_max));
    Room {
        blocks: blocks.min().expect("a layout has stages"),
        step_tokens_max,
    }
}

impl Device {
    /// As it is, but for how fast.
    fn with_rates(&self, scaled: impl Fn(u64) -> u64) -> Device {
        let mut device = self.clone();
        for product in &mut device.rates.products {
            product.with_1_row_per_sec = scaled(product.with_1_row_per_sec);
            product.with_16_rows_per_sec = scaled(product.with_16_rows_per_sec);
            product.with_128_rows_per_sec = scaled(product.with_128_rows_per_sec);
        }
        for attention in &mut device.rates.attention {
            attention.prompt_per_sec = scaled(attention.prompt_per_sec);
            attention.decode_per_sec = scaled(attention.decode_per_sec);
        }
        device
    }

    /// From here to another node: measured from either end, or taken for an ordinary one.
    fn link_to(&self, other: &Device) -> LinkProfile {
        let measured = |from: &Device, to: NodeId| from.links.iter().find(|link| link.to == to).copied();
        measured(self, other.node)
            .or_else(|| measured(other, self.node))
            .unwrap_or(LINK_UNMEASURED)
    }
}
