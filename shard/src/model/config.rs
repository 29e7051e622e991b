use crate::gguf::{Gguf, GgufError, Tensor};
use crate::stage::{Output, Stage};
use kernels::{HEAD_DIM_MAX, KvFormat};

/// What a decoder has to know of a model, besides its weights.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    /// Divides `heads`.
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward: usize,
    pub vocabulary: usize,
    /// The longest sequence the model was made for, in tokens.
    pub context_tokens_max: u32,
    pub norm_epsilon: f32,
    pub rope: RopeConfig,
    /// The file has no `output.weight`: the embedding table serves as the output matrix too.
    pub tied_embeddings: bool,
    /// No file says this: who serves the model does.
    pub kv: KvFormat,
}

/// Angle of pair `i` at position `p`: `p · base^(-2i / rotated) / (factors[i] · linear)`.
#[derive(Clone, PartialEq, Debug)]
pub struct RopeConfig {
    pub base: f32,
    /// Leading dimensions of a head that are rotated; even.
    pub rotated: usize,
    /// Positions are divided by it; 1 changes nothing.
    pub linear: f32,
    /// `rotated / 2` divisors of frequencies (Llama 3's scaling, ready made); empty: all 1.
    pub factors: Vec<f32>,
}

/// Why a file that is valid GGUF is no model that can be served.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
pub enum ConfigError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("the model is of the family \"{found}\"; this program knows: {known}")]
    UnknownFamily { found: String, known: &'static str },
    #[error("the model says {key} = {found}; {expected}: the file is damaged or of a kind not known here")]
    OutOfBounds {
        key: String,
        found: String,
        expected: String,
    },
    #[error(
        "tensor {tensor} is {found:?}, and {expected:?} is due: the file is damaged or of a kind not known here"
    )]
    WrongShape {
        tensor: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error(
        "tensor {tensor} has no place in the family \"llama\": the model would be computed wrongly without it"
    )]
    UnknownTensor { tensor: String },
}

const FAMILIES: &str = "llama";
/// Far above any model there is, and small enough that no product of two overflows.
const SIZE_MAX: u32 = 1 << 24;

impl ModelConfig {
    /// The model as one stage.
    pub fn whole(&self) -> Stage {
        Stage::new(0..self.layers, self.layers).expect("a model has layers")
    }

    pub fn output(&self) -> Output {
        match self.tied_embeddings {
            true => Output::Embeddings,
            false => Output::Own,
        }
    }

    /// Reads and bounds everything, and checks that every tensor is there in its shape and that no other is.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<ModelConfig, ConfigError> {
        let family = gguf.required("general.architecture", Gguf::string)?;
        if family != "llama" {
            return Err(ConfigError::UnknownFamily {
                found: family.to_owned(),
                known: FAMILIES,
            });
        }
        let config = read(gguf)?;
        config.check_tensors(gguf)?;
        Ok(config)
    }

    /// How many query heads share a KV head.
    pub fn heads_per_kv(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Dimensions of a layer's tensor, `[inputs, outputs]`, by the part of its name after `blk.N.`.
    fn layer_shapes(&self) -> [(&'static str, Vec<usize>); 9] {
        let (hidden, queries) = (self.hidden, self.heads * self.head_dim);
        let keys = self.kv_heads * self.head_dim;
        [
            ("attn_norm.weight", vec![hidden]),
            ("attn_q.weight", vec![hidden, queries]),
            ("attn_k.weight", vec![hidden, keys]),
            ("attn_v.weight", vec![hidden, keys]),
            ("attn_output.weight", vec![queries, hidden]),
            ("ffn_norm.weight", vec![hidden]),
            ("ffn_gate.weight", vec![hidden, self.feed_forward]),
            ("ffn_up.weight", vec![hidden, self.feed_forward]),
            ("ffn_down.weight", vec![self.feed_forward, hidden]),
        ]
    }

    fn check_tensors(&self, gguf: &Gguf<'_>) -> Result<(), ConfigError> {
        let mut due = vec![
            ("token_embd.weight".to_owned(), vec![self.hidden, self.vocabulary]),
            ("output_norm.weight".to_owned(), vec![self.hidden]),
        ];
        if !self.tied_embeddings {
            due.push(("output.weight".to_owned(), vec![self.hidden, self.vocabulary]));
        }
        if !self.rope.factors.is_empty() {
            due.push((ROPE_FACTORS.to_owned(), vec![self.rope.rotated / 2]));
        }
        for layer in 0..self.layers {
            let named = |(name, shape)| (format!("blk.{layer}.{name}"), shape);
            due.extend(self.layer_shapes().map(named));
        }
        due.iter()
            .try_for_each(|(name, shape)| check_shape(gguf.tensor(name)?, shape))?;
        let known = |tensor: &&Tensor<'_>| due.iter().any(|(name, _)| name == tensor.name);
        match gguf.tensors().count() == due.len() {
            true => Ok(()),
            false => {
                let unknown = gguf
                    .tensors()
                    .find(|tensor| !known(tensor))
                    .map_or("?", |tensor| tensor.name);
                Err(ConfigError::UnknownTensor {
                    tensor: unknown.to_owned(),
                })
            }
        }
    }
}

const ROPE_FACTORS: &str = "rope_freqs.weight";

fn read(gguf: &Gguf<'_>) -> Result<ModelConfig, ConfigError> {
    let heads = size(gguf, "llama.attention.head_count")?;
    let kv_heads = optional_size(gguf, "llama.attention.head_count_kv")?.unwrap_or(heads);
    expect(
        heads.is_multiple_of(kv_heads),
        "llama.attention.head_count_kv",
        kv_heads,
        "a divisor of the heads",
    )?;
    let hidden = size(gguf, "llama.embedding_length")?;
    let head_dim = match optional_size(gguf, "llama.attention.key_length")? {
        Some(length) => length,
        None => hidden / heads,
    };
    expect(
        head_dim > 0,
        "llama.attention.head_count",
        heads,
        "no more than the embedding's length",
    )?;
    expect(
        head_dim <= HEAD_DIM_MAX,
        "llama.attention.key_length",
        head_dim,
        "no more than 512",
    )?;
    let value_dim = optional_size(gguf, "llama.attention.value_length")?.unwrap_or(head_dim);
    expect(
        value_dim == head_dim,
        "llama.attention.value_length",
        value_dim,
        "the same as the key's length",
    )?;
    let embedding = gguf.tensor("token_embd.weight")?;
    Ok(ModelConfig {
        layers: layers(gguf)?,
        hidden,
        heads,
        kv_heads,
        head_dim,
        feed_forward: size(gguf, "llama.feed_forward_length")?,
        vocabulary: vocabulary(embedding)?,
        context_tokens_max: size(gguf, "llama.context_length")? as u32,
        norm_epsilon: positive(gguf, "llama.attention.layer_norm_rms_epsilon")?
            .ok_or(missing("llama.attention.layer_norm_rms_epsilon"))?,
        rope: rope(gguf, head_dim)?,
        tied_embeddings: gguf.find_tensor("output.weight").is_none(),
        kv: KvFormat::default(),
    })
}

fn layers(gguf: &Gguf<'_>) -> Result<usize, ConfigError> {
    let key = "llama.block_count";
    let layers = size(gguf, key)?;
    expect(
        layers <= gguf.tensors().count(),
        key,
        layers,
        "the file has fewer tensors than that",
    )?;
    Ok(layers)
}

fn rope(gguf: &Gguf<'_>, head_dim: usize) -> Result<RopeConfig, ConfigError> {
    let rotated_key = "llama.rope.dimension_count";
    let rotated = optional_size(gguf, rotated_key)?.unwrap_or(head_dim);
    let fits = rotated <= head_dim && rotated.is_multiple_of(2);
    expect(
        fits,
        rotated_key,
        rotated,
        "an even number up to the head's length",
    )?;
    let factors = match gguf.find_tensor(ROPE_FACTORS) {
        Some(tensor) => {
            check_shape(tensor, &[rotated / 2])?;
            tensor.floats()?
        }
        None => Vec::new(),
    };
    for factor in &factors {
        expect(
            factor.is_finite() && *factor > 0.0,
            ROPE_FACTORS,
            factor,
            "positive numbers",
        )?;
    }
    let base = positive(gguf, "llama.rope.freq_base")?.unwrap_or(10_000.0);
    Ok(RopeConfig {
        base,
        rotated,
        linear: linear_scaling(gguf)?,
        factors,
    })
}

fn linear_scaling(gguf: &Gguf<'_>) -> Result<f32, ConfigError> {
    let key = "llama.rope.scaling.type";
    match gguf.string(key)? {
        None | Some("none") => Ok(1.0),
        Some("linear") => {
            let factor = "llama.rope.scaling.factor";
            positive(gguf, factor)?.ok_or_else(|| missing(factor))
        }
        Some(other) => {
            expect(false, key, other, "\"none\" and \"linear\" are known")?;
            Ok(1.0)
        }
    }
}

fn vocabulary(embedding: &Tensor<'_>) -> Result<usize, ConfigError> {
    match embedding.dimensions[..] {
        [_, vocabulary] if vocabulary <= SIZE_MAX as usize => Ok(vocabulary),
        _ => Err(ConfigError::WrongShape {
            tensor: embedding.name.to_owned(),
            found: embedding.dimensions.clone(),
            expected: vec![0, 0],
        }),
    }
}

fn check_shape(tensor: &Tensor<'_>, expected: &[usize]) -> Result<(), ConfigError> {
    if tensor.dimensions == expected {
        return Ok(());
    }
    Err(ConfigError::WrongShape {
        tensor: tensor.name.to_owned(),
        found: tensor.dimensions.clone(),
        expected: expected.to_vec(),
    })
}

fn size(gguf: &Gguf<'_>, key: &str) -> Result<usize, ConfigError> {
    optional_size(gguf, key)?.ok_or_else(|| missing(key))
}

fn optional_size(gguf: &Gguf<'_>, key: &str) -> Result<Option<usize>, ConfigError> {
    let Some(found) = gguf.u32(key)? else {
        return Ok(None);
    };
    let within = (1..=SIZE_MAX).contains(&found);
    expect(within, key, found, "it must be at least 1 and at most 2^24")?;
    Ok(Some(found as usize))
}

fn positive(gguf: &Gguf<'_>, key: &str) -> Result<Option<f32>, ConfigError> {
    let Some(found) = gguf.f32(key)? else {
        return Ok(None);
    };
    expect(
        found.is_finite() && found > 0.0,
        key,
        found,
        "it must be a positive number",
    )?;
    Ok(Some(found))
}

fn missing(key: &str) -> ConfigError {
    GgufError::MissingKey { key: key.to_owned() }.into()
}

fn expect(holds: bool, key: &str, found: impl ToString, expected: &str) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::OutOfBounds {
        key: key.to_owned(),
        found: found.to_string(),
        expected: expected.to_owned(),
    })
}
