//! Where the parts of a model file lie, as far as its beginning tells.

use kernels::WeightFormat;
use shard::gguf::Layout;
use shard::testing::GgufWriter;
use shard::{Gguf, GgufError};
use std::ops::Range;

const NAMES: [&str; 7] = [
    "token_embd.weight",
    "blk.0.attn_q.weight",
    "blk.1.attn_q.weight",
    "blk.10.attn_q.weight",
    "rope_freqs.weight",
    "output_norm.weight",
    "output.weight",
];

fn file(names: &[&str]) -> Vec<u8> {
    let mut writer = GgufWriter::new(3);
    writer.string("general.architecture", "llama");
    for name in names {
        writer.tensor(name, &[32, 2], WeightFormat::F32, &[0.5; 64]);
    }
    writer.finish()
}

/// The names of the tensors that lie in these ranges, each whole.
fn names_in<'a>(file: &'a [u8], ranges: &[Range<u64>]) -> Vec<&'a str> {
    let gguf = Gguf::parse(file).unwrap();
    let lies_in = |bytes: &[u8]| {
        let at = bytes.as_ptr() as u64 - file.as_ptr() as u64;
        ranges.contains(&(at..at + bytes.len() as u64))
    };
    let tensors: Vec<&str> = gguf
        .tensors()
        .filter(|tensor| lies_in(tensor.bytes()))
        .map(|tensor| tensor.name)
        .collect();
    assert_eq!(
        tensors.len() + 1,
        ranges.len(),
        "the head, and one for each tensor"
    );
    tensors
}

#[test]
fn a_stage_needs_its_layers_and_the_ends_need_more() {
    let file = file(&NAMES);
    let layout = Layout::of_prefix(&file, file.len() as u64).unwrap().unwrap();
    assert_eq!(layout.layers(), 11);
    let stage = |layers| names_in(&file, &layout.ranges_of_stage(&layers));
    assert_eq!(
        stage(0..1),
        ["blk.0.attn_q.weight", "rope_freqs.weight", "token_embd.weight"]
    );
    assert_eq!(stage(1..10), ["blk.1.attn_q.weight", "rope_freqs.weight"]);
    assert_eq!(
        stage(10..11),
        [
            "blk.10.attn_q.weight",
            "output.weight",
            "output_norm.weight",
            "rope_freqs.weight"
        ]
    );
    assert_eq!(stage(0..11).len(), NAMES.len());
}

#[test]
fn what_a_stage_needs_is_in_the_order_in_which_it_loads_it() {
    let in_order = |names: &[&str], layers: Range<u32>| -> Vec<String> {
        let file = file(names);
        let layout = Layout::of_prefix(&file, file.len() as u64).unwrap().unwrap();
        let ranges = layout.ranges_of_stage(&layers);
        let gguf = Gguf::parse(&file).unwrap();
        let name = |range: &Range<u64>| {
            let tensor = gguf.tensors().find(|tensor| tensor.place() == *range);
            tensor.unwrap().name.to_owned()
        };
        let started = layout.ranges_of_start(&layers);
        assert_eq!(ranges[..started.len()], started, "what comes first");
        assert_eq!(started.len(), 2, "the head, and the factors of all layers");
        ranges[1..].iter().map(name).collect()
    };
    let loads = [
        "rope_freqs.weight",
        "token_embd.weight",
        "blk.0.attn_q.weight",
        "blk.1.attn_q.weight",
        "blk.10.attn_q.weight",
        "output_norm.weight",
        "output.weight",
    ];
    assert_eq!(in_order(&NAMES, 0..11), loads);
    let mut turned = NAMES;
    turned.reverse();
    assert_eq!(in_order(&turned, 1..10), [loads[0], loads[3]]);
    // What makes logits comes last where it is not what embeds too.
    let tied = in_order(&NAMES[..6], 10..11);
    assert_eq!(tied, [loads[0], loads[4], loads[1], loads[5]]);
}

#[test]
fn the_last_stage_has_the_embedding_where_there_is_no_output_matrix() {
    let file = file(&NAMES[..6]);
    let layout = Layout::of_prefix(&file, file.len() as u64).unwrap().unwrap();
    let last = names_in(&file, &layout.ranges_of_stage(&(10..11)));
    assert!(last.contains(&"token_embd.weight"), "{last:?}");
    assert!(!names_in(&file, &layout.ranges_of_stage(&(1..2))).contains(&"token_embd.weight"));
}

#[test]
fn a_beginning_is_enough_once_it_is_long_enough() {
    let file = file(&NAMES);
    let whole = Layout::of_prefix(&file, file.len() as u64).unwrap();
    let data = NAMES.len() * 64 * 4;
    let mut known = 0;
    for length in 8..file.len() {
        let layout = Layout::of_prefix(&file[..length], file.len() as u64).unwrap();
        if layout.is_some() {
            assert_eq!(layout, whole, "of {length} bytes");
            known += 1;
        }
        assert!(
            layout.is_some() || length < file.len() - data,
            "of {length} bytes"
        );
    }
    assert!(known >= data);
    let head = &whole.unwrap().ranges_of_stage(&(1..2))[0];
    assert_eq!(*head, 0..(file.len() - data) as u64);
}

#[test]
fn what_is_no_model_is_told_at_once() {
    let file = file(&NAMES);
    let length = file.len() as u64;
    assert_eq!(Layout::of_prefix(b"not a model", length), Err(GgufError::NotGguf));
    let short = Layout::of_prefix(&file, length - 1);
    assert!(matches!(short, Err(GgufError::Truncated { .. })), "{short:?}");
    let cut = Layout::of_prefix(&file[..100], 100);
    assert!(cut.is_err(), "{cut:?}");
}
