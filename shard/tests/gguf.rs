//! The parser on good, bad and mutated files.

use kernels::WeightFormat;
use shard::testing::{GgufWriter, TinyLlama};
use shard::{ConfigError, Gguf, GgufError, ModelConfig};

fn small(version: u32) -> GgufWriter {
    let mut writer = GgufWriter::new(version);
    writer.string("general.architecture", "llama");
    writer.u32("llama.block_count", 2);
    writer.f32("llama.rope.freq_base", 1e4);
    writer.bool("tokenizer.ggml.add_bos_token", true);
    writer.strings("tokenizer.ggml.tokens", &["<s>", "a", "é"]);
    writer.i32s("tokenizer.ggml.token_type", &[3, 1, -1]);
    writer.f32s("tokenizer.ggml.scores", &[0.0, -1.5]);
    writer.nested("nested", 3);
    writer.tensor("norm", &[4], WeightFormat::F32, &[1.0, 2.0, 3.0, 4.0]);
    writer.tensor("matrix", &[32, 2], WeightFormat::Q8_0, &[0.5; 64]);
    writer.raw_tensor("other", &[256], 12, vec![0; 144]);
    writer
}

/// The seeds of the fuzz target; `fuzz/corpus/gguf` keeps them as files.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut empty_array = GgufWriter::new(3);
    empty_array.strings("none", &[]);
    let mut deep = GgufWriter::new(3);
    deep.nested("deep", 5);
    let mut twice = small(3);
    twice.u32("llama.block_count", 3);
    let mut misaligned = GgufWriter::new(3);
    misaligned.u32("general.alignment", 7);
    let mut lying = small(3).finish();
    lying[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut truncated = small(3).finish();
    truncated.truncate(truncated.len() - 200);
    vec![
        ("v2", small(2).finish()),
        ("v3", small(3).finish()),
        ("empty_array", empty_array.finish()),
        ("deep", deep.finish()),
        ("twice", twice.finish()),
        ("misaligned", misaligned.finish()),
        ("lying_count", lying),
        ("truncated", truncated),
    ]
}

/// All that a caller may do with what was parsed. Must not panic on anything.
fn exercise(bytes: &[u8]) {
    let Ok(gguf) = Gguf::parse(bytes) else { return };
    for tensor in gguf.tensors() {
        let _ = (tensor.format(), tensor.floats(), tensor.kind_name());
    }
    for key in [
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "nested",
        "llama.block_count",
    ] {
        let _ = (
            gguf.strings(key),
            gguf.i32s(key),
            gguf.f32s(key),
            gguf.string(key),
            gguf.u32(key),
        );
    }
    let _ = ModelConfig::from_gguf(&gguf);
}

#[test]
fn both_versions_give_back_what_was_written() {
    for version in [2, 3] {
        let file = small(version).finish();
        let gguf = Gguf::parse(&file).unwrap();
        assert_eq!(gguf.string("general.architecture"), Ok(Some("llama")));
        assert_eq!(gguf.u32("llama.block_count"), Ok(Some(2)));
        assert_eq!(gguf.f32("llama.rope.freq_base"), Ok(Some(1e4)));
        assert_eq!(gguf.bool("tokenizer.ggml.add_bos_token"), Ok(Some(true)));
        assert_eq!(
            gguf.strings("tokenizer.ggml.tokens"),
            Ok(Some(&["<s>", "a", "é"][..]))
        );
        assert_eq!(gguf.i32s("tokenizer.ggml.token_type"), Ok(Some(vec![3, 1, -1])));
        assert_eq!(gguf.f32s("tokenizer.ggml.scores"), Ok(Some(vec![0.0, -1.5])));
        assert_eq!(gguf.u32("absent"), Ok(None));
        assert_eq!(
            gguf.tensor("norm").unwrap().floats(),
            Ok(vec![1.0, 2.0, 3.0, 4.0])
        );
        assert_eq!(gguf.tensor("matrix").unwrap().format(), Ok(WeightFormat::Q8_0));
        assert_eq!(gguf.tensor("matrix").unwrap().bytes().len(), 68);
    }
}

#[test]
fn half_floats_are_widened_exactly() {
    let mut writer = GgufWriter::new(3);
    writer.tensor("half", &[3], WeightFormat::F16, &[1.5, -0.25, 0.0]);
    writer.tensor("brain", &[2], WeightFormat::Bf16, &[-2.0, 0.5]);
    writer.raw_tensor("small", &[2], 1, vec![0x01, 0x00, 0x00, 0xfc]);
    let file = writer.finish();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.tensor("half").unwrap().floats(), Ok(vec![1.5, -0.25, 0.0]));
    assert_eq!(gguf.tensor("brain").unwrap().floats(), Ok(vec![-2.0, 0.5]));
    assert_eq!(
        gguf.tensor("small").unwrap().floats(),
        Ok(vec![2f32.powi(-24), f32::NEG_INFINITY])
    );
}

#[test]
fn a_getter_of_another_type_says_what_is_there() {
    let file = small(3).finish();
    let error = Gguf::parse(&file)
        .unwrap()
        .u32("general.architecture")
        .unwrap_err();
    assert!(
        error.to_string().contains("general.architecture is a string"),
        "{error}"
    );
}

#[test]
fn a_required_key_that_is_missing_is_named() {
    let file = small(3).finish();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(
        gguf.required("absent", Gguf::u32),
        Err(GgufError::MissingKey { key: "absent".into() })
    );
}

#[test]
fn a_format_that_cannot_be_used_is_an_error_only_when_it_is_needed() {
    let mut writer = small(3);
    writer.raw_tensor("three", &[256], 11, vec![0; 110]);
    let file = writer.finish();
    let gguf = Gguf::parse(&file).unwrap();
    let error = gguf.tensor("three").unwrap().format().unwrap_err();
    assert!(
        error.to_string().contains("tensor three is stored as Q3_K"),
        "{error}"
    );
    assert!(error.to_string().contains("Q6_K"), "what can be used: {error}");
}

#[test]
fn rows_of_six_bits_that_are_no_whole_blocks_are_refused() {
    let mut writer = GgufWriter::new(3);
    writer.raw_tensor("six", &[255, 2], 14, vec![0; 420]);
    let file = writer.finish();
    let Err(error) = Gguf::parse(&file) else {
        panic!("255 weights are no block");
    };
    assert!(error.to_string().contains("six"), "{error}");
}

#[test]
fn weights_of_blocks_of_256_are_for_matrices_and_count_as_what_they_are_kept_as() {
    let mut writer = GgufWriter::new(3);
    writer.tensor("six", &[512, 3], WeightFormat::Q6K, &[0.5; 3 * 512]);
    writer.tensor("four", &[512, 3], WeightFormat::Q4_0, &[0.5; 3 * 512]);
    writer.tensor("five", &[512, 3], WeightFormat::Q5K, &[-0.5; 3 * 512]);
    writer.tensor("four of 256", &[512, 3], WeightFormat::Q4K, &[-0.5; 3 * 512]);
    let file = writer.finish();
    let gguf = Gguf::parse(&file).unwrap();
    let six = gguf.tensor("six").unwrap();
    assert_eq!(six.format(), Ok(WeightFormat::Q6K));
    assert_eq!((six.bytes().len(), six.packed_bytes()), (6 * 210, 6 * 210));
    let five = gguf.tensor("five").unwrap();
    assert_eq!(five.format(), Ok(WeightFormat::Q5K));
    assert_eq!((five.bytes().len(), five.packed_bytes()), (6 * 176, 6 * 180));
    let four = gguf.tensor("four").unwrap();
    assert_eq!(four.packed_bytes(), four.bytes().len() as u64);
    let four = gguf.tensor("four of 256").unwrap();
    assert_eq!(four.format(), Ok(WeightFormat::Q4K));
    assert_eq!((four.bytes().len(), four.packed_bytes()), (6 * 144, 6 * 148));
    let error = four.floats().unwrap_err();
    assert!(
        error.to_string().contains("Q4_K, a format for matrices"),
        "{error}"
    );
    let error = six.floats().unwrap_err();
    assert!(
        error.to_string().contains("Q6_K, a format for matrices"),
        "{error}"
    );
}

#[test]
fn every_truncation_is_an_error() {
    let file = small(3).finish();
    // The last tensor is padded: cutting only padding loses nothing.
    let padding = 160 - 144;
    for length in 0..file.len() - padding {
        assert!(
            Gguf::parse(&file[..length]).is_err(),
            "{length} of {} bytes",
            file.len()
        );
    }
    assert!(Gguf::parse(&file[..file.len() - padding]).is_ok());
}

#[test]
fn a_truncated_file_is_told_apart_and_the_bytes_are_named() {
    let file = small(3).finish();
    let error = Gguf::parse(&file[..file.len() - 100]).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("truncated: tensor other needs bytes"), "{text}");
    assert!(text.contains("fetch it again"), "{text}");
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let said = |name: &str| {
        let (_, file) = seeds().into_iter().find(|seed| seed.0 == name).unwrap();
        Gguf::parse(&file).unwrap_err().to_string()
    };
    assert!(said("twice").contains("llama.block_count stands there a second time"));
    assert!(said("deep").contains("nests arrays"));
    assert!(said("misaligned").contains("general.alignment"));
    assert!(said("lying_count").contains("the number of tensors would be"));
    assert_eq!(Gguf::parse(b"GGML....").unwrap_err(), GgufError::NotGguf);
    assert_eq!(
        Gguf::parse(b"GGUF\x01\0\0\0").unwrap_err(),
        GgufError::UnknownVersion { found: 1 }
    );
}

/// `KEEP_SEEDS=1 cargo test -p shard --test gguf kept` writes them anew.
#[test]
fn the_kept_corpus_holds_the_seeds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../node/fuzz/corpus/gguf/");
    for (name, file) in seeds() {
        let path = format!("{folder}{name}");
        if std::env::var_os("KEEP_SEEDS").is_some() {
            std::fs::write(&path, &file).unwrap();
        }
        let same = std::fs::read(&path).is_ok_and(|kept| kept == file);
        assert!(same, "{path} is not what the test writes");
    }
}

#[test]
fn mutated_files_never_panic() {
    let mut random = 1u64;
    for (_, seed) in seeds() {
        for _ in 0..1500 {
            let mut file = seed.clone();
            for _ in 0..=next(&mut random) % 4 {
                mutate(&mut file, &mut random);
            }
            exercise(&file);
        }
    }
}

#[test]
fn a_mutated_model_never_panics() {
    let tiny = TinyLlama {
        layers: 1,
        vocabulary: 32,
        ..TinyLlama::default()
    };
    let whole = tiny.file();
    let mut random = 7u64;
    for _ in 0..1500 {
        let mut file = whole.clone();
        let at = next(&mut random) as usize % 1500;
        file[at] = next(&mut random) as u8;
        exercise(&file);
    }
}

fn next(random: &mut u64) -> u64 {
    *random = random
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    *random >> 33
}

/// Overwrites, cuts, doubles or replaces a length by an edge value.
fn mutate(file: &mut Vec<u8>, random: &mut u64) {
    let at = next(random) as usize % file.len().max(1);
    match next(random) % 4 {
        0 => file.truncate(at),
        1 => file.extend_from_within(at..),
        2 if at + 8 <= file.len() => {
            let edges = [
                0,
                1,
                u64::from(u32::MAX),
                i64::MAX as u64,
                u64::MAX,
                file.len() as u64,
            ];
            file[at..at + 8].copy_from_slice(&edges[next(random) as usize % edges.len()].to_le_bytes());
        }
        _ if file.is_empty() => {}
        _ => file[at] ^= next(random) as u8 | 1,
    }
}

#[test]
fn a_model_is_understood() {
    let file = TinyLlama::default().file();
    let config = ModelConfig::from_gguf(&Gguf::parse(&file).unwrap()).unwrap();
    assert_eq!(
        (config.layers, config.heads, config.kv_heads, config.head_dim),
        (2, 9, 3, 32)
    );
    assert_eq!(
        (config.hidden, config.feed_forward, config.vocabulary),
        (288, 384, 515)
    );
    assert!(config.tied_embeddings);
    assert_eq!(config.rope.rotated, 32);
}

#[test]
fn heads_that_no_kernel_has_room_for_are_refused() {
    let tiny = TinyLlama {
        head_dim: 544,
        ..TinyLlama::default()
    };
    let error = ModelConfig::from_gguf(&Gguf::parse(&tiny.file()).unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("llama.attention.key_length"),
        "{error}"
    );
    assert!(error.to_string().contains("no more than 512"), "{error}");
}

#[test]
fn a_tensor_without_a_place_is_refused() {
    let mut writer = GgufWriter::new(3);
    TinyLlama::default().write(&mut writer);
    writer.tensor("blk.0.attn_q.bias", &[4], WeightFormat::F32, &[0.0; 4]);
    let file = writer.finish();
    let error = ModelConfig::from_gguf(&Gguf::parse(&file).unwrap()).unwrap_err();
    assert_eq!(
        error,
        ConfigError::UnknownTensor {
            tensor: "blk.0.attn_q.bias".into()
        }
    );
}

#[test]
fn an_unknown_family_is_named_with_the_known_ones() {
    let mut writer = GgufWriter::new(3);
    writer.string("general.architecture", "mamba");
    let file = writer.finish();
    let error = ModelConfig::from_gguf(&Gguf::parse(&file).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model is of the family \"mamba\"; this program knows: llama"
    );
}
