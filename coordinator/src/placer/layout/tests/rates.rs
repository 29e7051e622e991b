//! What the rates of a device and the formats of a model make of a layout.

use super::*;
use crate::placer::layout::pace::{Rows, attention_ns, product_ns};

/// How many layers each of these nodes has.
fn shares(layout: &Layout, nodes: [u64; 2]) -> [usize; 2] {
    nodes.map(|node| {
        let stages = layout.stages.iter();
        let mut own = stages.filter(|stage| stage.node.0 == node);
        own.next().map_or(0, |stage| range(stage).len())
    })
}

#[test]
fn layers_go_by_the_format_that_the_model_has() {
    let mut q8 = shape(vec![10 * MIB; 20]);
    (q8.head_products.weights, q8.head_bytes, q8.embedding_bytes) = (0, 0, 0);
    let q4 = all_in(q8.clone(), Q4);
    let mut devices = [device(1, 190), slower_in(device(2, 190), Q4, 250)];
    for device in &mut devices {
        device.rates.attention.clear();
    }
    let layout = laid(&q8, &devices);
    assert_eq!(shares(&layout, [1, 2]), [10, 10], "in Q8_0 they are equals");
    let layout = laid(&q4, &devices);
    assert_eq!(
        shares(&layout, [1, 2]),
        [16, 4],
        "in Q4_0 one does four times as much"
    );
    let stage = layout.reasons().iter().find(|line| line.contains("on node 2"));
    assert!(
        stage.unwrap().contains("multiplying Q4_0 weights at"),
        "{stage:?}"
    );
}

#[test]
fn a_model_of_two_formats_is_cut_by_what_each_layer_is() {
    // Half of it in each; the second device is slow in what comes last.
    let mut mixed = shape(vec![10 * MIB; 16]);
    (
        mixed.head_products.weights,
        mixed.head_bytes,
        mixed.embedding_bytes,
    ) = (0, 0, 0);
    for products in mixed.layer_products[8..].iter_mut().flatten() {
        products.kind = Q4;
    }
    let devices = [device(1, 160), slower_in(device(2, 160), Q4, 100)];
    let layout = laid(&mixed, &devices);
    assert_eq!(nodes(&layout), [2, 1], "the slow one takes what it is good at");
    assert_eq!(shares(&layout, [2, 1]), [8, 8]);
}

#[test]
fn a_product_takes_what_was_measured_and_between_two_measurements_what_lies_between() {
    let device = device(1, 1);
    let took_ns = |rows| product_ns(&device, Q8, 1_000_000, rows);
    assert_eq!([1, 4, 16].map(took_ns), [100_000; 3]);
    assert_eq!(took_ns(128), 1_000_000);
    assert_eq!(took_ns(72), 550_000);
    assert_eq!(took_ns(512), 4_000_000);
    assert_eq!(took_ns(0), 0);
}

#[test]
fn what_was_not_measured_counts_as_the_slowest_that_was() {
    let two_terms = |format| ProductKind {
        format,
        inputs: InputTerms::Two,
    };
    let mut device = device(1, 1);
    let rates = |kind, per_sec| ProductRates {
        kind,
        with_1_row_per_sec: per_sec,
        with_16_rows_per_sec: per_sec,
        with_128_rows_per_sec: per_sec,
    };
    device.rates.products = vec![
        rates(Q8, 4_000),
        rates(Q4, 2_000),
        rates(two_terms(MatrixFormat::Q8_0), 1_000),
    ];
    let took_ns = |kind| product_ns(&device, kind, 1, 1);
    let f16 = ProductKind {
        format: MatrixFormat::F16,
        inputs: InputTerms::One,
    };
    assert_eq!(
        took_ns(f16),
        500_000,
        "as Q4_0, the slower of those with one term"
    );
    assert_eq!(took_ns(two_terms(MatrixFormat::Q4_0)), 1_000_000);
    device.rates.products.truncate(2);
    assert_eq!(product_ns(&device, two_terms(MatrixFormat::Q8_0), 1, 1), 500_000);
    device.rates.products.clear();
    assert_eq!(product_ns(&device, Q8, 1, 1), u64::MAX);
    let attention = |kv_cache| attention_ns(&device, kv_cache, Rows::OfPrompt, 20);
    assert_eq!(attention(KvCacheFormat::Int8), 1, "as the other format");
    device.rates.attention.clear();
    assert_eq!(attention_ns(&device, KvCacheFormat::Bf16, Rows::OfPrompt, 20), 0);
}

#[test]
fn attention_and_second_terms_are_in_what_is_predicted() {
    let plain = shape(vec![10 * MIB; 8]);
    let mut fine = plain.clone();
    for products in fine.layer_products.iter_mut().flatten() {
        products.kind.inputs = InputTerms::Two;
    }
    let mut device = device(1, 500);
    let two_terms = device.rates.products.iter().map(|rates| ProductRates {
        kind: ProductKind {
            inputs: InputTerms::Two,
            ..rates.kind
        },
        with_128_rows_per_sec: rates.with_128_rows_per_sec / 2,
        ..*rates
    });
    let both: Vec<ProductRates> = device.rates.products.iter().copied().chain(two_terms).collect();
    device.rates.products = both;
    let mut blind = device.clone();
    blind.rates.attention.clear();
    let prompts = |shape: &ModelShape, device: &Device| {
        let devices = std::slice::from_ref(device);
        laid(shape, devices).predicted.prefill_millitokens_per_sec as f64
    };
    assert!(prompts(&plain, &blind) > 1.9 * prompts(&fine, &blind));
    // 512 tokens: 42 G products with weights at 128 G a second, and 1 G of attention at 20.
    let slower = prompts(&plain, &blind) / prompts(&plain, &device);
    let expected =
        1.0 + (8.0 * 2.0 * 512.0 * 512.0 * 513.0 / 2.0 / 20e9) / (512.0 * 80.0 * MIB as f64 / 128e9);
    assert!((slower - expected).abs() < 0.01, "{slower}, not {expected}");
}

#[test]
fn only_rows_that_are_sampled_go_through_the_output_matrix() {
    let small = shape(vec![10 * MIB; 8]);
    let mut large = small.clone();
    large.head_products.weights = 120 * MIB;
    let predicted = |shape: &ModelShape| laid(shape, &[device(1, 500)]).predicted;
    let (small, large) = (predicted(&small), predicted(&large));
    assert!(large.prefill_millitokens_per_sec * 100 > small.prefill_millitokens_per_sec * 95);
    assert!(large.decode_1_millitokens_per_sec * 2 < small.decode_1_millitokens_per_sec);
}

/// By streams alone it would be 9 to 7: each of their tokens goes through the output matrix, which is worth two layers here.
#[test]
fn a_cut_suits_prompts_and_streams() {
    let mut shape = shape(vec![60 * MIB; 16]);
    shape.head_products.weights = 100 * MIB;
    let devices = [1, 2].map(|node| {
        let mut device = device(node, 700);
        for product in &mut device.rates.products {
            product.with_128_rows_per_sec = product.with_16_rows_per_sec / 8;
        }
        device
    });
    let layout = fit(&shape, &devices, Wishes::default()).unwrap();
    let layers = layout
        .stages
        .iter()
        .map(|stage| stage.layer_end - stage.layer_first);
    assert_eq!(layers.collect::<Vec<_>>(), [8, 8]);
}
