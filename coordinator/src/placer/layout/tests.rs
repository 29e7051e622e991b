mod rates;
mod rooms;

use super::sizes::Work;
use super::*;
use proptest::prelude::*;
use proto::cluster::{
    AttentionRates, InputTerms, KvCacheFormat, MatrixFormat, ProductKind, ProductRates, Products, RowBytes,
    WorkspaceShape,
};
use std::ops::Range;

const MIB: u64 = 1 << 20;

const Q8: ProductKind = ProductKind {
    format: MatrixFormat::Q8_0,
    inputs: InputTerms::One,
};
const Q4: ProductKind = ProductKind {
    format: MatrixFormat::Q4_0,
    inputs: InputTerms::One,
};

/// All in Q8_0, of about a byte for each weight.
fn shape(layer_weight_bytes: Vec<u64>) -> ModelShape {
    let products = |bytes: &u64| {
        vec![Products {
            kind: Q8,
            weights: *bytes,
        }]
    };
    ModelShape {
        layers: layer_weight_bytes.len() as u32,
        hidden: 1024,
        heads: 8,
        kv_heads: 2,
        head_dim: 64,
        context_tokens_max: 2048,
        layer_products: layer_weight_bytes.iter().map(products).collect(),
        layer_weight_bytes,
        embedding_bytes: 12 * MIB,
        head_bytes: 15 * MIB,
        head_products: Products {
            kind: Q8,
            weights: 12 * MIB,
        },
        kv_bytes_per_token_layer: 256,
        kv_cache: KvCacheFormat::Bf16,
        tied_bytes: 0,
        common_bytes: 2 * MIB,
        position_bytes: 0,
        workspace: WorkspaceShape::default(),
        block_tokens: 16,
    }
}

/// As fast with 16 rows as with one, in Q8_0 and in Q4_0; 128 G products in a second with many, and 20 G of attention.
fn device(node: u64, memory_mebibytes: u64) -> Device {
    let product = |kind| ProductRates {
        kind,
        with_1_row_per_sec: 10_000_000_000,
        with_16_rows_per_sec: 10_000_000_000,
        with_128_rows_per_sec: 1_000_000_000,
    };
    Device {
        node: NodeId(node),
        memory_bytes: memory_mebibytes * MIB,
        threads: 4,
        rates: NodeRates {
            products: vec![product(Q8), product(Q4)],
            attention: vec![AttentionRates {
                kv_cache: KvCacheFormat::Bf16,
                prompt_per_sec: 20_000_000_000,
                decode_per_sec: 20_000_000_000,
            }],
        },
        links: vec![],
    }
}

fn slower(device: Device, per_mille: u64) -> Device {
    let mut device = slower_in(slower_in(device, Q8, per_mille), Q4, per_mille);
    for rates in &mut device.rates.attention {
        rates.prompt_per_sec = rates.prompt_per_sec * per_mille / 1000;
        rates.decode_per_sec = rates.decode_per_sec * per_mille / 1000;
    }
    device
}

fn slower_in(mut device: Device, kind: ProductKind, per_mille: u64) -> Device {
    let products = device.rates.products.iter_mut();
    for rates in products.filter(|rates| rates.kind == kind) {
        for rate in [
            &mut rates.with_1_row_per_sec,
            &mut rates.with_16_rows_per_sec,
            &mut rates.with_128_rows_per_sec,
        ] {
            *rate = *rate * per_mille / 1000;
        }
    }
    device
}

/// The same weights in another format.
fn all_in(mut shape: ModelShape, kind: ProductKind) -> ModelShape {
    for products in shape.layer_products.iter_mut().flatten() {
        products.kind = kind;
    }
    shape.head_products.kind = kind;
    shape
}

fn laid(shape: &ModelShape, devices: &[Device]) -> Layout {
    fit(shape, devices, Wishes::default()).unwrap()
}

fn nodes(layout: &Layout) -> Vec<u64> {
    layout.stages.iter().map(|stage| stage.node.0).collect()
}

fn range(stage: &StagePlace) -> Range<u32> {
    stage.layer_first..stage.layer_end
}

/// The least time of the slowest stage, by looking at everything, with so many stages. `None`: no way fits.
fn by_looking(sizes: &Sizes<'_>, devices: &[Device], stages: usize) -> Option<u64> {
    fn go(sizes: &Sizes<'_>, left: &[&Device], start: u32, stages: usize) -> Option<u64> {
        if stages == 0 {
            return (start == sizes.layers()).then_some(0);
        }
        let mut best = None;
        for (index, device) in left.iter().enumerate() {
            let mut others = left.to_vec();
            others.remove(index);
            for end in start + 1..=sizes.layers() {
                if sizes.memory_bytes(&(start..end), sizes.room_least()) > device.memory_bytes {
                    break;
                }
                let step_ns = cut::mixed_ns(sizes, device, &(start..end));
                let rest = go(sizes, &others, end, stages - 1);
                best = best.into_iter().chain(rest.map(|rest| rest.max(step_ns))).min();
            }
        }
        best
    }
    go(sizes, &devices.iter().collect::<Vec<_>>(), 0, stages)
}

fn slowest_ns(sizes: &Sizes<'_>, layout: &Layout, devices: &[Device]) -> u64 {
    let steps = layout.stages.iter().map(|stage| {
        let device = devices.iter().find(|device| device.node == stage.node).unwrap();
        cut::mixed_ns(sizes, device, &range(stage))
    });
    steps.max().unwrap()
}

fn some_devices(count: Range<usize>) -> impl Strategy<Value = Vec<Device>> {
    prop::collection::vec((10..120_u64, 200..1000_u64, 200..1000_u64), count).prop_map(|made| {
        let numbered = made.into_iter().enumerate();
        let made = numbered.map(|(index, (memory, per_mille, q4_per_mille))| {
            let device = slower(device(index as u64 + 1, memory), per_mille);
            slower_in(device, Q4, q4_per_mille)
        });
        made.collect()
    })
}

/// A layer of so many weights in each of the formats.
fn layered(layers: Vec<(u64, u64)>) -> ModelShape {
    let mut shape = shape(layers.iter().map(|(q8, q4)| q8 + q4 * 9 / 16).collect());
    let products =
        |(q8, q4): (u64, u64)| [(Q8, q8), (Q4, q4)].map(|(kind, weights)| Products { kind, weights });
    shape.layer_products = layers.into_iter().map(|layer| products(layer).to_vec()).collect();
    shape
}

/// Three devices and any layers, or four and layers that are alike: then the order of those in the middle is nothing.
fn some_cases() -> impl Strategy<Value = (ModelShape, Vec<Device>)> {
    let a_layer = || (MIB..10 * MIB, MIB..20 * MIB);
    let any_layers = prop::collection::vec(a_layer(), 1..7).prop_map(layered);
    let like_layers = (a_layer(), 1..8_usize).prop_map(|(layer, count)| layered(vec![layer; count]));
    prop_oneof![
        (any_layers, some_devices(1..4)),
        (like_layers, some_devices(4..5))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_layout_has_fewer_stages_or_a_faster_slowest_one((shape, devices) in some_cases()) {
        let sizes = Sizes::new(&shape, 1);
        let found = fit(&shape, &devices, Wishes::default());
        let best = (1..=devices.len()).find_map(|stages| Some((stages, by_looking(&sizes, &devices, stages)?)));
        prop_assert_eq!(found.is_ok(), best.is_some());
        if let (Ok(layout), Some((stages, best_ns))) = (found, best) {
            prop_assert_eq!(layout.stages.len(), stages);
            let slowest_ns = slowest_ns(&sizes, &layout, &devices);
            match stages {
                1 => prop_assert!(slowest_ns <= best_ns + best_ns / 4),
                _ => prop_assert_eq!(slowest_ns, best_ns),
            }
        }
    }

    #[test]
    fn every_layer_has_its_place_and_no_memory_is_exceeded(
        layers in prop::collection::vec(MIB..20 * MIB, 1..60),
        devices in some_devices(1..12),
    ) {
        let shape = shape(layers);
        match fit(&shape, &devices, Wishes::default()) {
            Ok(layout) => {
                let sizes = Sizes::new(&shape, 1);
                let mut next = 0;
                for stage in &layout.stages {
                    prop_assert_eq!(stage.layer_first, next);
                    prop_assert!(stage.layer_end > next);
                    next = stage.layer_end;
                    let device = devices.iter().find(|device| device.node == stage.node).unwrap();
                    prop_assert!(stage.memory_bytes <= device.memory_bytes);
                    prop_assert_eq!(stage.memory_bytes, sizes.memory_bytes(&range(stage), layout.room));
                }
                prop_assert_eq!(next, shape.layers);
                prop_assert!(layout.room.blocks >= sizes.blocks_least());
                let mut apart = nodes(&layout);
                apart.sort_unstable();
                apart.dedup();
                prop_assert_eq!(apart.len(), layout.stages.len());
            }
            Err(NoFit::NoRoom(room)) => prop_assert_eq!(room.free.len(), devices.len()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// Whatever one of three is slower by, all together are as fast as their speeds add up to, but for a tenth.
    #[test]
    fn a_slow_device_gets_so_many_layers_as_it_is_worth(per_mille in 250..1000_u64, place in 0..3_usize) {
        let mut shape = shape(vec![30 * MIB; 48]);
        (shape.head_bytes, shape.head_products.weights, shape.embedding_bytes) = (0, 0, 0);
        let mut devices: Vec<Device> = (1..=3).map(|node| device(node, 720)).collect();
        devices[place] = slower(devices[place].clone(), per_mille);
        let layout = laid(&shape, &devices);
        prop_assert_eq!(layout.stages.len(), 3);
        // Three micro-batches go round, and each is multiplied with all weights.
        let weights: u64 = shape.layer_weight_bytes.iter().sum();
        let seconds = |device: &Device| {
            let products_ns = pace::product_ns(device, Q8, weights, 43);
            let seen = 43 * 512;
            let attention_ns = seen * 2 * 8 * 64 * 48 * 1_000_000_000 / device.rates.attention[0].decode_per_sec;
            (products_ns + attention_ns) as f64 / 1e9
        };
        let speed: f64 = devices.iter().map(|device| 1.0 / seconds(device)).sum();
        let optimum = 128.0 * 1e3 * speed / 3.0;
        let predicted = layout.predicted.decode_128_millitokens_per_sec as f64;
        prop_assert!(predicted >= 0.9 * optimum && predicted <= optimum, "{predicted} of {optimum}");
        let slow = layout.stages.iter().find(|stage| stage.node == devices[place].node).unwrap();
        let worth = 48.0 * per_mille as f64 / (2000 + per_mille) as f64;
        prop_assert!((range(slow).len() as f64 - worth).abs() <= 1.0, "{:?}, worth {worth}", range(slow));
    }
}

#[test]
fn one_node_takes_it_whole_where_it_can_and_the_roomiest_is_preferred() {
    let shape = shape(vec![10 * MIB; 8]);
    let devices = [
        device(1, 90),
        device(2, 300),
        slower(device(3, 900), 500),
        device(4, 400),
    ];
    let layout = laid(&shape, &devices);
    assert_eq!(nodes(&layout), [4], "node 3 has more, and is too slow");
    assert_eq!(range(&layout.stages[0]), 0..8);
    assert_eq!(layout.predicted.bubble_per_mille, 0);
}

#[test]
fn the_ends_go_where_their_extra_bytes_fit() {
    let mut shape = shape(vec![10 * MIB; 4]);
    (shape.embedding_bytes, shape.head_bytes) = (70 * MIB, 60 * MIB);
    let devices = [device(1, 80), device(2, 50), device(3, 90)];
    assert_eq!(nodes(&laid(&shape, &devices)), [3, 2, 1]);
}

#[test]
fn the_cache_is_what_the_tightest_stage_can_give() {
    let shape = shape(vec![10 * MIB; 8]);
    let sizes = Sizes::new(&shape, 1);
    let layout = laid(&shape, &[device(1, 100), device(2, 70)]);
    assert_eq!(sizes.blocks_least(), 128, "one context of 2,048 tokens");
    let give = |stage: &StagePlace| {
        let memory_bytes = [100 * MIB, 70 * MIB][stage.node.0 as usize - 1];
        let left = memory_bytes
            - sizes.memory_bytes(
                &range(stage),
                Room {
                    blocks: 0,
                    ..layout.room
                },
            );
        ((left / 4 / sizes.block_bytes(&range(stage))) as u32).max(128)
    };
    assert_eq!(Some(layout.room.blocks), layout.stages.iter().map(give).min());
    assert!(layout.room.blocks > 128, "{}", layout.room.blocks);
    let rich = laid(&shape, &[device(1, 100_000)]);
    assert_eq!(rich.room.blocks, 64 * 2048 / 16);
}

#[test]
fn a_context_that_is_huge_is_not_insisted_on() {
    let mut long = shape(vec![10 * MIB; 8]);
    long.context_tokens_max = 1 << 20;
    assert_eq!(Sizes::new(&long, 1).blocks_least(), 8192 / 16);
    assert!(fit(&long, &[device(1, 130)], Wishes::default()).is_ok());
    let rich = laid(&long, &[device(1, 100_000)]);
    assert_eq!(rich.room.blocks, (1 << 20) / 16, "where there is room, one of it");
}

#[test]
fn what_is_missing_is_said_in_numbers() {
    let model = shape(vec![100 * MIB; 7]);
    let error = fit(&model, &[device(1, 300), device(4, 200)], Wishes::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "needs 736 MiB in all; node 1 has 300 MiB free, node 4 has 200 MiB free: add a node, or give them more with \
         --memory"
    );
    let coarse = shape(vec![100 * MIB; 3]);
    let small: Vec<Device> = (1..=10).map(|node| device(node, 99)).collect();
    let error = fit(&coarse, &small, Wishes::default()).unwrap_err().to_string();
    assert!(
        error.contains("node 8 has 99 MiB free, and 2 more have no room either"),
        "{error}"
    );
    assert!(error.contains("the largest takes 118 MiB by itself"), "{error}");
    assert_eq!(fit(&model, &[], Wishes::default()), Err(NoFit::NoNodes));
    assert_eq!(
        fit(&ModelShape::default(), &[device(1, 1)], Wishes::default()),
        Err(NoFit::NoLayers)
    );
}

#[test]
fn ranks_stay_inside_a_node_and_across_nodes_they_are_refused_with_the_arithmetic() {
    let shape = shape(vec![10 * MIB; 8]);
    let mut small = device(1, 900);
    small.threads = 2;
    small.links = vec![LinkProfile {
        to: NodeId(2),
        bytes_per_sec: 100_000_000,
        round_trip_ns: 400_000,
    }];
    let layout = fit(&shape, &[small.clone(), device(2, 200)], Wishes { ranks: 4 }).unwrap();
    assert_eq!((nodes(&layout), layout.stages[0].ranks), (vec![2], 4));
    let kept_twice = Sizes::new(&shape, 4);
    assert_eq!(
        kept_twice.block_bytes(&(0..1)),
        2 * Sizes::new(&shape, 2).block_bytes(&(0..1))
    );
    let error = fit(&shape, &[small], Wishes { ranks: 4 }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "4 ranks would have to span nodes, since no node computes with more than 2 threads: 2 gathers in each of 8 layers \
         over a round trip of 0.40 ms are 6.40 ms for every token, against 0.24 ms for a hop between two stages; ask for \
         2 ranks or fewer"
    );
    let error = fit(&shape, &[device(1, 900)], Wishes { ranks: 9 }).unwrap_err();
    assert_eq!(error, NoFit::RanksBeyondHeads { ranks: 9, heads: 8 });
}

#[test]
fn the_reasons_name_every_stage_and_hop_with_its_numbers() {
    let shape = shape(vec![10 * MIB; 8]);
    let mut first = device(1, 60);
    first.links = vec![LinkProfile {
        to: NodeId(2),
        bytes_per_sec: 1_000_000_000,
        round_trip_ns: 100_000,
    }];
    let layout = laid(&shape, &[first, slower(device(2, 100), 500)]);
    let lines = layout.reasons();
    let begins = [
        "2 stages: ",
        "stage 1 on node 2: layers 0 to 3 of 8",
        "hop from node 2 to node 1: ",
        "stage 2 on node 1: layers 4 to 7 of 8",
        "steps: ",
        "cache: ",
        "predicted: ",
    ];
    assert_eq!(lines.len(), begins.len(), "{lines:#?}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}");
    }
    assert!(
        lines[2].contains("64 KiB for 16 tokens in 0.12 ms (measured: 1000.0 MB/s, round trip 0.10 ms)"),
        "{}",
        lines[2]
    );
}

#[test]
fn one_stream_waits_for_every_stage_and_many_only_for_the_slowest() {
    let shape = shape(vec![100 * MIB; 8]);
    let devices = [device(1, 500), device(2, 500)];
    let layout = laid(&shape, &devices);
    let alone = laid(&shape, &[device(1, 5000)]);
    let one = |layout: &Layout| layout.predicted.decode_1_millitokens_per_sec;
    let many = |layout: &Layout| layout.predicted.decode_128_millitokens_per_sec;
    assert!(one(&layout) < one(&alone));
    assert!(
        many(&layout) > many(&alone) * 9 / 10,
        "two micro-batches read everything twice"
    );
    assert!(layout.predicted.bubble_per_mille < 100, "{:?}", layout.predicted);
    let first_token = |layout: &Layout| layout.predicted.first_token_micros;
    assert!(
        first_token(&layout) < first_token(&alone),
        "one stage computes while the other does"
    );
    assert!(first_token(&layout) > first_token(&alone) / 2);
}

#[test]
fn numbers_without_measure_harm_nothing() {
    let mut shape = shape(vec![u64::MAX / 2; 3]);
    assert!(fit(&shape, &[device(1, 10)], Wishes::default()).is_err());
    (shape.kv_bytes_per_token_layer, shape.workspace.row.each) = (u64::MAX, u64::MAX);
    assert!(fit(&shape, &[device(1, 10)], Wishes::default()).is_err());
    let shape = self::shape(vec![10 * MIB; 8]);
    let still = slower(device(1, 120), 0);
    let layout = laid(&shape, &[still.clone(), device(2, 50)]);
    assert_eq!(nodes(&layout), [1], "it is the only one with the room");
    assert_eq!(layout.predicted.decode_1_millitokens_per_sec, 0);
}
