//! Small model files made on the spot. Public because tests of other rooms need a model too, and none is in the tree.

use crate::stage::Output;
use kernels::WeightFormat;

/// Writes a GGUF file entry by entry.
pub struct GgufWriter {
    version: u32,
    metadata: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

const ALIGNMENT: usize = 32;

impl GgufWriter {
    pub fn new(version: u32) -> Self {
        GgufWriter {
            version,
            metadata: Vec::new(),
            tensors: Vec::new(),
        }
    }

    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.metadata
            .push([&string(key), &kind.to_le_bytes()[..], value].concat());
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.entry(key, 4, &value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.entry(key, 6, &value.to_le_bytes());
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.entry(key, 7, &[value.into()]);
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.entry(key, 8, &string(value));
    }

    pub fn strings(&mut self, key: &str, values: &[&str]) {
        let elements: Vec<u8> = values.iter().flat_map(|value| string(value)).collect();
        self.entry(key, 9, &array(8, values.len(), &elements));
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        let elements: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.entry(key, 9, &array(5, values.len(), &elements));
    }

    pub fn f32s(&mut self, key: &str, values: &[f32]) {
        let elements: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.entry(key, 9, &array(6, values.len(), &elements));
    }

    /// An array of arrays of u8, `depth` deep.
    pub fn nested(&mut self, key: &str, depth: u32) {
        let inner = (1..depth).fold(array(0, 2, &[1, 2]), |inner, _| array(9, 1, &inner));
        self.entry(key, 9, &inner);
    }

    /// `values` are stored in `format`, rounded to it.
    pub fn tensor(&mut self, name: &str, dimensions: &[usize], format: WeightFormat, values: &[f32]) {
        let bytes = encode(format, values);
        self.tensors
            .push((name.to_owned(), dimensions.to_vec(), kind(format), bytes));
    }

    /// A tensor of any ggml type number, with bytes as given.
    pub fn raw_tensor(&mut self, name: &str, dimensions: &[usize], kind: u32, bytes: Vec<u8>) {
        self.tensors
            .push((name.to_owned(), dimensions.to_vec(), kind, bytes));
    }

    /// Another one of the same size in the place of a tensor that was given.
    ///
    /// # Panics
    /// When there is none of the name.
    pub fn replace(&mut self, name: &str, format: WeightFormat, values: &[f32]) {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.0 == name);
        let (_, _, tensor_kind, bytes) = tensor.expect("a tensor to replace");
        (*tensor_kind, *bytes) = (kind(format), encode(format, values));
    }

    pub fn finish(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        file.extend(self.metadata.concat());
        let mut data = Vec::new();
        for (name, dimensions, kind, bytes) in &self.tensors {
            file.extend(string(name));
            file.extend((dimensions.len() as u32).to_le_bytes());
            file.extend(dimensions.iter().flat_map(|size| (*size as u64).to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(data);
        file
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn array(kind: u32, count: usize, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes(), elements].concat()
}

fn kind(format: WeightFormat) -> u32 {
    match format {
        WeightFormat::F32 => 0,
        WeightFormat::F16 => 1,
        WeightFormat::Q4_0 => 2,
        WeightFormat::Q4_1 => 3,
        WeightFormat::Q5_0 => 6,
        WeightFormat::Q8_0 => 8,
        WeightFormat::Q4K => 12,
        WeightFormat::Q5K => 13,
        WeightFormat::Q6K => 14,
        WeightFormat::Bf16 => 30,
    }
}

/// Rounds towards zero where the format is coarser: good enough for weights that are random anyway.
fn encode(format: WeightFormat, values: &[f32]) -> Vec<u8> {
    let blocks = values.chunks_exact(format.block());
    match format {
        WeightFormat::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        WeightFormat::F16 => values.iter().flat_map(|value| f16(*value)).collect(),
        WeightFormat::Bf16 => values
            .iter()
            .flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes())
            .collect(),
        WeightFormat::Q8_0 => blocks.flat_map(q8_0).collect(),
        WeightFormat::Q4_0 => blocks.flat_map(q4_0).collect(),
        WeightFormat::Q4_1 => blocks.flat_map(q4_1).collect(),
        WeightFormat::Q5_0 => blocks.flat_map(q5_0).collect(),
        WeightFormat::Q4K => blocks.flat_map(q4_k).collect(),
        WeightFormat::Q5K => blocks.flat_map(q5_k).collect(),
        WeightFormat::Q6K => blocks.flat_map(q6_k).collect(),
    }
}

/// Normal numbers; what is too small becomes zero.
fn f16(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let fraction = (bits >> 13 & 0x3ff) as u16;
    match exponent {
        ..=0 => sign,
        1..=30 => sign | (exponent as u16) << 10 | fraction,
        _ => panic!("{value} is too large for f16"),
    }
    .to_le_bytes()
}

fn extremes(block: &[f32]) -> (f32, f32) {
    let lowest = block.iter().copied().fold(f32::INFINITY, f32::min);
    (lowest, block.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

fn q8_0(block: &[f32]) -> Vec<u8> {
    let (lowest, highest) = extremes(block);
    let scale = lowest.abs().max(highest.abs()) / 127.0;
    let quants = block
        .iter()
        .map(|value| (value / scale).round().clamp(-127.0, 127.0) as i8 as u8);
    f16(scale).into_iter().chain(quants).collect()
}

fn q4_0(block: &[f32]) -> Vec<u8> {
    let (lowest, highest) = extremes(block);
    let scale = lowest.abs().max(highest.abs()) / 7.0;
    let quants = block
        .iter()
        .map(|value| (value / scale + 8.0).round().clamp(0.0, 15.0) as u8)
        .collect();
    f16(scale).into_iter().chain(nibbles(quants)).collect()
}

fn q5_0(block: &[f32]) -> Vec<u8> {
    let (lowest, highest) = extremes(block);
    let scale = lowest.abs().max(highest.abs()) / 15.0;
    let quants: Vec<u8> = block
        .iter()
        .map(|value| (value / scale + 16.0).round().clamp(0.0, 31.0) as u8)
        .collect();
    let fifth = (0..).zip(&quants).map(|(k, q)| u32::from(q >> 4) << k);
    let fifth: u32 = fifth.sum();
    let nibbles = nibbles(quants.iter().map(|q| q & 15).collect());
    f16(scale)
        .into_iter()
        .chain(fifth.to_le_bytes())
        .chain(nibbles)
        .collect()
}

fn q4_1(block: &[f32]) -> Vec<u8> {
    let (lowest, highest) = extremes(block);
    let scale = (highest - lowest) / 15.0;
    let quants = block
        .iter()
        .map(|value| ((value - lowest) / scale).round().clamp(0.0, 15.0) as u8)
        .collect();
    f16(scale)
        .into_iter()
        .chain(f16(lowest))
        .chain(nibbles(quants))
        .collect()
}

/// The first half of a block in the low nibbles, the second in the high ones.
fn nibbles(quants: Vec<u8>) -> Vec<u8> {
    let (low, high) = quants.split_at(quants.len() / 2);
    low.iter().zip(high).map(|(low, high)| low | high << 4).collect()
}

fn q4_k(block: &[f32]) -> Vec<u8> {
    let (head, quants) = with_minima(block, 15.0, 63.0);
    head.into_iter().chain(nibbles_by_turns(&quants)).collect()
}

fn q5_k(block: &[f32]) -> Vec<u8> {
    // Fewer steps for the reason of `q6_k`.
    let (head, quants) = with_minima(block, 31.0, 31.0);
    let mut fifth = [0; 32];
    for (k, q) in quants.iter().enumerate() {
        fifth[k % 32] |= q >> 4 << (k / 32);
    }
    let quants = quants.map(|q| q & 15);
    let bits = fifth.into_iter().chain(nibbles_by_turns(&quants));
    head.into_iter().chain(bits).collect()
}

/// Of each 64 weights, the first half in low nibbles and the second in high ones.
fn nibbles_by_turns(quants: &[u8; 256]) -> Vec<u8> {
    quants
        .chunks(64)
        .flat_map(|quants| nibbles(quants.to_vec()))
        .collect()
}

/// What is before the weights of Q4_K and Q5_K, and these up to `largest`, with scales up to `scale_max`. Minima below zero have a
/// step of their own, as scales do.
fn with_minima(block: &[f32], largest: f32, scale_max: f32) -> (Vec<u8>, [u8; 256]) {
    let parts: Vec<(f32, f32)> = block.chunks_exact(32).map(extremes).collect();
    let scale = |(lowest, highest): &(f32, f32)| (highest - lowest.min(0.0)) / largest;
    let d = parts.iter().map(scale).fold(0.0, f32::max) / scale_max;
    let e = parts.iter().map(|(lowest, _)| -lowest).fold(0.0, f32::max) / 63.0;
    let six_bits = |value: f32, step: f32| (value / step).round().clamp(1.0, 63.0) as u8;
    let (mut scales, mut quants) = ([0; 12], [0; 256]);
    for (index, part) in parts.iter().enumerate() {
        let (scale, minimum) = (six_bits(scale(part), d), six_bits(-part.0, e));
        match index {
            0..4 => (scales[index], scales[index + 4]) = (scale, minimum),
            _ => {
                scales[index + 4] = scale & 15 | minimum << 4;
                scales[index - 4] |= scale >> 4 << 6;
                scales[index] |= minimum >> 4 << 6;
            }
        }
        let (step, least) = (d * f32::from(scale), e * f32::from(minimum));
        let values = block[32 * index..].iter();
        for (q, value) in quants[32 * index..][..32].iter_mut().zip(values) {
            *q = ((value + least) / step).round().clamp(0.0, largest) as u8;
        }
    }
    let halves = f16(d).into_iter().chain(f16(e));
    (halves.chain(scales).collect(), quants)
}

/// Scales have only few steps: more would make `d` too small for [`f16()`].
fn q6_k(block: &[f32]) -> Vec<u8> {
    let largest = |values: &[f32]| {
        let (lowest, highest) = extremes(values);
        lowest.abs().max(highest.abs())
    };
    let d = largest(block) / 31.0 / 16.0;
    let scales: Vec<u8> = block
        .chunks_exact(16)
        .map(|values| (largest(values) / 31.0 / d).ceil().max(1.0) as u8)
        .collect();
    let (mut low, mut high) = ([0; 128], [0; 64]);
    for (k, value) in block.iter().enumerate() {
        let step = d * f32::from(scales[k / 16]);
        let q = (value / step + 32.0).round().clamp(0.0, 63.0) as u8;
        let (half, quarter, place) = (k / 128, k % 128 / 32, k % 32);
        low[64 * half + 32 * (quarter % 2) + place] |= (q & 15) << (4 * (quarter / 2));
        high[32 * half + place] |= q >> 4 << (2 * quarter);
    }
    let quants = low.into_iter().chain(high);
    quants.chain(scales).chain(f16(d)).collect()
}

/// The shape of a random model.
#[derive(Clone, Copy, Debug)]
pub struct TinyLlama {
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward: usize,
    pub vocabulary: usize,
    pub context_tokens_max: u32,
    /// Of all matrices.
    pub format: WeightFormat,
    /// What makes logits.
    pub output: Output,
    pub seed: u64,
}

impl Default for TinyLlama {
    /// Three query heads to a KV head, as SmolLM2 has them, so that a cut over two ranks is uneven.
    fn default() -> Self {
        TinyLlama {
            layers: 2,
            heads: 9,
            kv_heads: 3,
            head_dim: 32,
            feed_forward: 384,
            vocabulary: 515,
            context_tokens_max: 2048,
            format: WeightFormat::Q4_1,
            output: Output::Embeddings,
            seed: 1,
        }
    }
}

impl TinyLlama {
    /// As small as the default, in another format, with rows of whole blocks of it.
    pub fn of(format: WeightFormat) -> TinyLlama {
        let tiny = TinyLlama {
            format,
            ..TinyLlama::default()
        };
        match format.block() {
            256 => TinyLlama {
                heads: 8,
                kv_heads: 2,
                feed_forward: 512,
                ..tiny
            },
            _ => tiny,
        }
    }

    /// The file. Weights are random, so its tokens mean nothing, but every part of the arithmetic is exercised.
    pub fn file(&self) -> Vec<u8> {
        let mut writer = GgufWriter::new(3);
        self.write(&mut writer);
        writer.finish()
    }

    /// Adds metadata and tensors, so that a caller can add a tokenizer too.
    pub fn write(&self, writer: &mut GgufWriter) {
        self.metadata(writer);
        let hidden = self.heads * self.head_dim;
        let mut random = Random(self.seed);
        self.matrix(writer, &mut random, "token_embd.weight", hidden, self.vocabulary);
        norm(writer, &mut random, "output_norm.weight", hidden);
        for layer in 0..self.layers {
            self.layer(writer, &mut random, layer);
        }
        match self.output {
            Output::Embeddings => {}
            Output::Own => self.matrix(writer, &mut random, "output.weight", hidden, self.vocabulary),
        }
    }

    fn metadata(&self, writer: &mut GgufWriter) {
        writer.string("general.architecture", "llama");
        writer.u32("llama.block_count", self.layers as u32);
        writer.u32("llama.context_length", self.context_tokens_max);
        writer.u32("llama.embedding_length", (self.heads * self.head_dim) as u32);
        writer.u32("llama.feed_forward_length", self.feed_forward as u32);
        writer.u32("llama.attention.head_count", self.heads as u32);
        writer.u32("llama.attention.head_count_kv", self.kv_heads as u32);
        writer.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
        writer.f32("llama.rope.freq_base", 10_000.0);
        writer.u32("llama.rope.dimension_count", self.head_dim as u32);
    }

    fn layer(&self, writer: &mut GgufWriter, random: &mut Random, layer: usize) {
        let hidden = self.heads * self.head_dim;
        let keys = self.kv_heads * self.head_dim;
        norm(writer, random, &format!("blk.{layer}.attn_norm.weight"), hidden);
        norm(writer, random, &format!("blk.{layer}.ffn_norm.weight"), hidden);
        for (name, inputs, outputs) in [
            ("attn_q", hidden, hidden),
            ("attn_k", hidden, keys),
            ("attn_v", hidden, keys),
            ("attn_output", hidden, hidden),
            ("ffn_gate", hidden, self.feed_forward),
            ("ffn_up", hidden, self.feed_forward),
            ("ffn_down", self.feed_forward, hidden),
        ] {
            self.matrix(
                writer,
                random,
                &format!("blk.{layer}.{name}.weight"),
                inputs,
                outputs,
            );
        }
    }

    fn matrix(
        &self,
        writer: &mut GgufWriter,
        random: &mut Random,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) {
        let spread = 2.0 / (inputs as f32).sqrt();
        let values: Vec<f32> = (0..inputs * outputs).map(|_| random.next() * spread).collect();
        writer.tensor(name, &[inputs, outputs], self.format, &values);
    }
}

fn norm(writer: &mut GgufWriter, random: &mut Random, name: &str, columns: usize) {
    let values: Vec<f32> = (0..columns).map(|_| 1.0 + random.next() / 4.0).collect();
    writer.tensor(name, &[columns], WeightFormat::F32, &values);
}

/// SplitMix64: the same file for the same seed.
struct Random(u64);

impl Random {
    /// Uniform in [-1, 1).
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
