use crate::gguf::Gguf;
use crate::model::ModelConfig;
use kernels::{KvFormat, WeightFormat};

/// Changes whenever the arithmetic of kernels, decoder or sampler changes a bit.
const NUMERICS_VERSION: u64 = 1;
/// The same for products with bf16 weights alone, so that what others compute keeps its prefixes and streams.
const BF16_VERSION: u64 = 2;

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
    let has_bf16 = gguf
        .tensors()
        .any(|tensor| matches!(tensor.format(), Ok(WeightFormat::Bf16)));
    let bf16 = has_bf16.then_some(BF16_VERSION);
    fnv1a(
        std::iter::once(NUMERICS_VERSION)
            .chain(words)
            .chain(float_words)
            .chain(bf16),
    )
}

fn fnv1a(words: impl Iterator<Item = u64>) -> u64 {
    let bytes = words.flat_map(u64::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
