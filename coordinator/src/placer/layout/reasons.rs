//! A layout in words: what goes where, and which number decided it.

use super::Device;
use super::cut::{MICRO_BATCH, Part};
use super::forecast::Forecast;
use super::no_fit::{mebibytes_up, millis};
use super::pace::product_ns;
use super::sizes::{CONTEXT_TOKENS_USUAL, Room, Sizes, Work};
use proto::cluster::{MatrixFormat, Prediction};
use std::collections::BTreeMap;

pub fn lines(
    sizes: &Sizes<'_>,
    able: &[&Device],
    parts: &[Part<'_>],
    room: Room,
    forecast: &Forecast<'_>,
) -> Vec<String> {
    let mut lines = vec![why_so_many(sizes, able, parts)];
    for (index, part) in parts.iter().enumerate() {
        lines.push(stage(sizes, index, part, room));
        if index + 1 < parts.len() {
            lines.push(hop(sizes, index, parts, forecast));
        }
    }
    lines.push(steps(room, forecast));
    lines.push(cache(sizes, parts, room));
    lines.push(speeds(&forecast.prediction(), parts.len()));
    lines
}

fn why_so_many(sizes: &Sizes<'_>, able: &[&Device], parts: &[Part<'_>]) -> String {
    let whole = mebibytes_up(sizes.memory_bytes(&(0..sizes.layers()), sizes.room_least()));
    match parts {
        [part] => format!(
            "1 stage: all of it takes {whole} MiB or more, and node {} has {} MiB free",
            part.device.node,
            part.device.memory_bytes >> 20
        ),
        _ => {
            let most = able.iter().map(|device| device.memory_bytes).max().unwrap_or(0) >> 20;
            format!(
                "{} stages: all of it takes {whole} MiB or more, no node has more than {most} MiB free, and with fewer \
                 stages it does not fit",
                parts.len()
            )
        }
    }
}

fn stage(sizes: &Sizes<'_>, index: usize, part: &Part<'_>, room: Room) -> String {
    let (device, layers) = (part.device, &part.layers);
    let work = Work::decode(MICRO_BATCH);
    let cache_bytes = sizes.block_bytes(layers).saturating_mul(u64::from(room.blocks));
    let bound = bound(sizes, part, work);
    let ranks = match sizes.ranks() {
        1 => String::new(),
        ranks => format!(", {ranks} ranks"),
    };
    format!(
        "stage {} on node {}: layers {} to {} of {}, {} threads{ranks}; {} of {} MiB: {} of weights, {} of cache, {} to \
         compute in; {} ms for {MICRO_BATCH} tokens, most of it {bound}",
        index + 1,
        device.node,
        layers.start,
        layers.end - 1,
        sizes.layers(),
        device.threads,
        mebibytes_up(sizes.memory_bytes(layers, room)),
        device.memory_bytes >> 20,
        mebibytes_up(sizes.weight_bytes(layers)),
        mebibytes_up(cache_bytes),
        mebibytes_up(sizes.workspace_bytes(layers, room)),
        millis(sizes.step_ns(device, layers, work)),
    )
}

/// What takes most of a step.
fn bound(sizes: &Sizes<'_>, part: &Part<'_>, work: Work) -> String {
    let (device, layers) = (part.device, &part.layers);
    // Time and products, by format.
    let mut formats: BTreeMap<MatrixFormat, (u64, u128)> = BTreeMap::new();
    for (kind, weights, rows) in sizes.products(layers, work) {
        let (elapsed_ns, products) = formats.entry(kind.format).or_default();
        *elapsed_ns = elapsed_ns.saturating_add(product_ns(device, kind, weights, rows));
        *products += u128::from(weights) * u128::from(rows);
    }
    let attention_ns = sizes.attention_ns(device, layers, work);
    let slowest = formats.iter().max_by_key(|(_, (elapsed_ns, _))| *elapsed_ns);
    match slowest {
        Some((format, (elapsed_ns, products))) if *elapsed_ns >= attention_ns => format!(
            "multiplying {format} weights at {:.1} G products/s",
            *products as f64 / (*elapsed_ns).max(1) as f64
        ),
        Some(_) | None => format!("attention over {CONTEXT_TOKENS_USUAL} positions each"),
    }
}

fn hop(sizes: &Sizes<'_>, index: usize, parts: &[Part<'_>], forecast: &Forecast<'_>) -> String {
    let (from, to) = (parts[index].device, parts[index + 1].device);
    let link = from.link_to(to);
    let is_measured = [(from, to), (to, from)]
        .iter()
        .any(|(from, to)| from.links.iter().any(|link| link.to == to.node));
    let source = match is_measured {
        true => "measured",
        false => "not measured, taken for",
    };
    let hop_ns = forecast
        .move_ns(index, MICRO_BATCH)
        .saturating_add(forecast.wait_ns(index, index + 1));
    format!(
        "hop from node {} to node {}: {} KiB for {MICRO_BATCH} tokens in {} ms ({source}: {:.1} MB/s, round trip {} ms)",
        from.node,
        to.node,
        (sizes.row_bytes() * MICRO_BATCH).div_ceil(1024),
        millis(hop_ns),
        link.bytes_per_sec as f64 / 1e6,
        millis(link.round_trip_ns)
    )
}

fn steps(room: Room, forecast: &Forecast<'_>) -> String {
    format!(
        "steps: room for {} tokens; {} of a prompt are expected to fit into {} ms",
        room.step_tokens_max,
        forecast.step_tokens_expected(),
        forecast.prompt_step_max().0 / 1_000_000
    )
}

fn cache(sizes: &Sizes<'_>, parts: &[Part<'_>], room: Room) -> String {
    let Room {
        blocks,
        step_tokens_max,
    } = room;
    let tightest = parts
        .iter()
        .min_by_key(|part| sizes.blocks_within(&part.layers, part.device.memory_bytes, step_tokens_max));
    let node = tightest.map(|part| part.device.node).unwrap_or_default();
    format!(
        "cache: {blocks} blocks of {} tokens on every stage, {} tokens in all, as many as node {node} can give",
        sizes.block_tokens(),
        u64::from(blocks) * u64::from(sizes.block_tokens())
    )
}

fn speeds(predicted: &Prediction, stages: usize) -> String {
    let rate = |millitokens: u64| format!("{:.1}", millitokens as f64 / 1e3);
    let bubble = match stages {
        1 => String::new(),
        _ => format!(
            "; with 128 streams stages wait {:.1} % of the time",
            f64::from(predicted.bubble_per_mille) / 10.0
        ),
    };
    format!(
        "predicted: {} tokens/s with 1 stream, {} with 16, {} with 128; prompts at {} tokens/s, the first token of 512 \
         after {:.1} ms{bubble}",
        rate(predicted.decode_1_millitokens_per_sec),
        rate(predicted.decode_16_millitokens_per_sec),
        rate(predicted.decode_128_millitokens_per_sec),
        rate(predicted.prefill_millitokens_per_sec),
        predicted.first_token_micros as f64 / 1e3
    )
}
