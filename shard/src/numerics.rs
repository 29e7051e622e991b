use crate::gguf::Gguf;
use crate::model::ModelConfig;
use kernels::{KvFormat, WeightFormat};

/// Changes whenever the arithmetic of kernels, decoder or sampler changes a bit.
const NUMERICS_VERSION: u64 = 5;
/// The same for products with weights of one kind alone, so that what others compute keeps its prefixes and streams.
const BF16_VERSION: u64 = 2;
const QUANTISED_VERSION: u64 = 3;
const SUPER_BLOCKS_VERSION: u64 = 4;

/// Replicas of one model file with the same fingerprint give the same tokens, bit for bit. Neither ranks nor threads,
/// neither the CPU's level nor the size of a block matter.
pub fn numerics_fingerprint(config: &ModelConfig, gguf: &Gguf<'_>) -> u64 {
    let rope = &config.rope;
    let sizes = [
        config.layers,
        config.hidden,
        config.heads,
        config.kv_heads,
        config.head_dim,
    ];
    let more_sizes = [config.feed_forward, config.vocabulary, rope.rotated];
    let floats = [config.norm_epsilon, rope.base, rope.linear];
    let kv = match config.kv {
        KvFormat::Bf16 => 0,
        KvFormat::Int8 => 1,
    };
    let words = sizes
        .into_iter()
        .chain(more_sizes)
        .map(|size| size as u64)
        .chain([kv]);
    let float_words = floats
        .iter()
        .chain(&rope.factors)
        .map(|float| u64::from(float.to_bits()));
    let has = |version: u64| {
        let mut formats = gguf.tensors().filter_map(|tensor| tensor.format().ok());
        formats
            .any(|format| version_of(format) == Some(version))
            .then_some(version)
    };
    fnv1a(
        std::iter::once(NUMERICS_VERSION)
            .chain(words)
            .chain(float_words)
            .chain(has(BF16_VERSION))
            .chain(has(QUANTISED_VERSION))
            .chain(has(SUPER_BLOCKS_VERSION)),
    )
}

fn version_of(format: WeightFormat) -> Option<u64> {
    match format {
        WeightFormat::F32 | WeightFormat::F16 => None,
        WeightFormat::Bf16 => Some(BF16_VERSION),
        WeightFormat::Q4K | WeightFormat::Q5K | WeightFormat::Q6K => Some(SUPER_BLOCKS_VERSION),
        WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4_1 | WeightFormat::Q5_0 => {
            Some(QUANTISED_VERSION)
        }
    }
}

fn fnv1a(words: impl Iterator<Item = u64>) -> u64 {
    let bytes = words.flat_map(u64::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
