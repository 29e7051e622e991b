//! Which devices take which layers.
//!
//! For devices in a given order and a limit on the time of a stage, taking as many layers as one can is never wrong: a
//! stage that begins later ends no earlier. So the most layers that the first devices can take in so many stages follows
//! from one table, and the least limit under which they take all is found by halving. Only the ends of the pipeline have
//! work of their own (embeddings, output matrix), so every pair of ends is tried, with the others in between by speed.

use super::Device;
use super::sizes::{CONTEXT_TOKENS_USUAL, Sizes, Work, nanoseconds};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

/// The cut is made for steps of so many streams …
pub const MICRO_BATCH: u64 = 16;
/// … and for so many tokens of prompts beside them: recorded traffic reads four and more for each that it writes. Streams go
/// through the output matrix in every step, and of prompts next to nothing does, so that a cut for one of them alone leaves the
/// other's stages uneven.
const PROMPT_ROWS: u64 = 4 * MICRO_BATCH;

/// Of the fastest devices, and of the roomiest.
const ENDS_EACH: usize = 8;

/// What a stage of these layers takes for what the cut is made for.
pub fn mixed_ns(sizes: &Sizes<'_>, device: &Device, layers: &Range<u32>) -> u64 {
    let prompt = CONTEXT_TOKENS_USUAL..CONTEXT_TOKENS_USUAL + PROMPT_ROWS;
    let [streams, prompt] = [Work::decode(MICRO_BATCH), Work::prefill(prompt, u64::MAX)];
    sizes
        .step_ns(device, layers, streams)
        .saturating_add(sizes.step_ns(device, layers, prompt))
}

/// The layers of one device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part<'a> {
    pub device: &'a Device,
    pub layers: Range<u32>,
}

/// In the order of the layers: as few parts as hold all layers, the slowest of them as fast as can be, and among the
/// equally fast those with the least time on the way. `None`: they do not fit.
pub fn best<'a>(sizes: &Sizes<'_>, devices: &[&'a Device]) -> Option<Vec<Part<'a>>> {
    if let Some(device) = alone(sizes, devices) {
        let layers = 0..sizes.layers();
        return Some(vec![Part { device, layers }]);
    }
    // One that cannot take any layer is no help.
    let is_any_help = |device: &&'a Device| {
        (0..sizes.layers()).any(|layer| end_within(sizes, device, layer, u64::MAX) > layer)
    };
    let mut ordered: Vec<&Device> = devices.iter().copied().filter(is_any_help).collect();
    ordered.sort_by_key(|device| {
        (
            mixed_ns(sizes, device, &(0..1)),
            Reverse(device.memory_bytes),
            device.node,
        )
    });
    let stages_max = ordered.len().min(sizes.layers() as usize);
    (2..=stages_max)
        .filter(|stages| could_hold(sizes, &ordered, *stages))
        .find_map(|stages| best_of(sizes, &ordered, stages))
}

/// Were layers as fine as sand, would so many of the devices hold them?
fn could_hold(sizes: &Sizes<'_>, devices: &[&Device], stages: usize) -> bool {
    let mut free: Vec<u64> = devices.iter().map(|device| device.memory_bytes).collect();
    free.sort_unstable_by_key(|bytes| Reverse(*bytes));
    let there = free.iter().take(stages).copied().fold(0, u64::saturating_add);
    there >= sizes.memory_bytes_over(stages as u64)
}

/// Of those that hold it whole and are at most a quarter slower than the fastest, the one with the most memory: speeds
/// that were measured differ a little, and load should spread.
fn alone<'a>(sizes: &Sizes<'_>, devices: &[&'a Device]) -> Option<&'a Device> {
    let all = 0..sizes.layers();
    let step_ns = |device: &Device| mixed_ns(sizes, device, &all);
    let roomy = || {
        devices
            .iter()
            .copied()
            .filter(|device| is_within(sizes, device, &all, u64::MAX))
    };
    let fastest_ns = roomy().map(step_ns).min()?;
    let slowest_ns = fastest_ns.saturating_add(fastest_ns / 4);
    roomy()
        .filter(|device| step_ns(device) <= slowest_ns)
        .min_by_key(|device| (Reverse(device.memory_bytes), step_ns(device), device.node))
}

struct Found<'a> {
    slowest_ns: u64,
    travel_ns: u64,
    parts: Vec<Part<'a>>,
}

fn best_of<'a>(sizes: &Sizes<'_>, devices: &[&'a Device], stages: usize) -> Option<Vec<Part<'a>>> {
    let mut best: Option<Found<'a>> = None;
    let ends = ends(devices);
    for first in ends.iter().copied() {
        for last in ends.iter().copied().filter(|last| *last != first) {
            let order = with_ends(devices, first, last);
            let limit_ns = best.as_ref().map_or(u64::MAX, |best| best.slowest_ns);
            let Some(parts) = within(sizes, &order, stages, limit_ns) else {
                continue;
            };
            let found = fastest(sizes, &order, stages, parts);
            let rank = |found: &Found<'_>| (found.slowest_ns, found.travel_ns);
            if best.as_ref().is_none_or(|best| rank(&found) < rank(best)) {
                best = Some(found);
            }
        }
    }
    best.map(|found| found.parts)
}

/// Which may stand at an end, of devices that come by speed: all, or of many the fastest and the roomiest.
fn ends(devices: &[&Device]) -> BTreeSet<usize> {
    let mut by_room: Vec<usize> = (0..devices.len()).collect();
    by_room.sort_by_key(|index| Reverse(devices[*index].memory_bytes));
    let roomiest = by_room.into_iter().take(ENDS_EACH);
    roomiest.chain((0..devices.len()).take(ENDS_EACH)).collect()
}

fn with_ends<'a>(devices: &[&'a Device], first: usize, last: usize) -> Vec<&'a Device> {
    let between = (0..devices.len()).filter(|index| *index != first && *index != last);
    [first]
        .into_iter()
        .chain(between)
        .chain([last])
        .map(|index| devices[index])
        .collect()
}

/// Starts from some cut of these devices and finds the fastest.
fn fastest<'a>(
    sizes: &Sizes<'_>,
    order: &[&'a Device],
    stages: usize,
    some_parts: Vec<Part<'a>>,
) -> Found<'a> {
    let mut parts = some_parts;
    let (mut low_ns, mut high_ns) = (0, slowest_ns(sizes, &parts));
    // Most orders are no better than one that was looked at before, so that is asked first.
    let mut limit_ns = high_ns.saturating_sub(1);
    while low_ns < high_ns {
        match within(sizes, order, stages, limit_ns) {
            Some(faster) => {
                high_ns = slowest_ns(sizes, &faster);
                parts = faster;
            }
            None => low_ns = limit_ns + 1,
        }
        limit_ns = low_ns + (high_ns - low_ns) / 2;
    }
    Found {
        slowest_ns: high_ns,
        travel_ns: travel_ns(sizes, &parts),
        parts,
    }
}

/// The fastest cut of these devices, in this order and without leaving one out, where there is a faster one than this.
pub fn fastest_of<'a>(sizes: &Sizes<'_>, order: &[&'a Device], parts: Vec<Part<'a>>) -> Vec<Part<'a>> {
    fastest(sizes, order, order.len(), parts).parts
}

pub fn slowest_ns(sizes: &Sizes<'_>, parts: &[Part<'_>]) -> u64 {
    let step_ns = |part: &Part<'_>| mixed_ns(sizes, part.device, &part.layers);
    parts.iter().map(step_ns).max().unwrap_or(0)
}

fn travel_ns(sizes: &Sizes<'_>, parts: &[Part<'_>]) -> u64 {
    let hops = parts.windows(2).map(|pair| {
        let link = pair[0].device.link_to(pair[1].device);
        let bytes = u128::from(sizes.row_bytes()) * u128::from(MICRO_BATCH);
        nanoseconds(bytes, link.bytes_per_sec).saturating_add(link.round_trip_ns / 2)
    });
    hops.fold(0, u64::saturating_add)
}

/// All layers over at most so many of the devices, in this order, none of them slower than the limit.
fn within<'a>(
    sizes: &Sizes<'_>,
    order: &[&'a Device],
    stages: usize,
    limit_ns: u64,
) -> Option<Vec<Part<'a>>> {
    // The most layers that the first so many devices can take in at most so many stages.
    let mut reach = vec![vec![0; stages + 1]];
    for device in order {
        let before = &reach[reach.len() - 1];
        let mut row = before.clone();
        for used in 1..=stages {
            row[used] = row[used].max(end_within(sizes, device, before[used - 1], limit_ns));
        }
        reach.push(row);
    }
    if reach[order.len()][stages] < sizes.layers() {
        return None;
    }
    let mut parts = Vec::new();
    let mut used = stages;
    for index in (0..order.len()).rev() {
        let end = reach[index + 1][used];
        if end > reach[index][used] {
            used -= 1;
            let layers = reach[index][used]..end;
            let device = order[index];
            parts.push(Part { device, layers });
        }
    }
    parts.reverse();
    Some(parts)
}

/// How far the device gets from layer `start` on; `start` when it cannot take even that one.
fn end_within(sizes: &Sizes<'_>, device: &Device, start: u32, limit_ns: u64) -> u32 {
    let (mut good, mut bad) = (start, sizes.layers() + 1);
    while good + 1 < bad {
        let end = good + (bad - good) / 2;
        match is_within(sizes, device, &(start..end), limit_ns) {
            true => good = end,
            false => bad = end,
        }
    }
    good
}

fn is_within(sizes: &Sizes<'_>, device: &Device, layers: &Range<u32>, limit_ns: u64) -> bool {
    sizes.memory_bytes(layers, sizes.room_least()) <= device.memory_bytes
        && mixed_ns(sizes, device, layers) <= limit_ns
}
