use crate::gguf::{Gguf, Tensor};
use crate::memory::{position_bytes, workspace_shape};
use crate::model::{LoadError, ModelConfig, precision};
use crate::stage::{Stage, layer_of};
use kernels::{InputPrecision, KvFormat, WeightFormat};
use proto::cluster::{InputTerms, KvCacheFormat, MatrixFormat, ModelShape, ProductKind, Products};
use std::collections::BTreeMap;

/// What has to be known of a model to place it: what its parts take, and how much there is to compute. Bytes of weights are
/// those of the formats in which they are kept; a device may pack them a little tighter or looser. What a process takes besides
/// is not in it.
pub fn model_shape(
    config: &ModelConfig,
    gguf: &Gguf<'_>,
    block_tokens: u32,
) -> Result<ModelShape, LoadError> {
    let layer_weight_bytes: Vec<u64> = (0..config.layers)
        .map(|layer| bytes_of_layer(gguf, layer))
        .collect();
    let layer_products = (0..config.layers).map(|layer| products_of_layer(gguf, layer));
    let embedding = gguf.tensor("token_embd.weight")?;
    let output = match config.tied_embeddings {
        true => embedding,
        false => gguf.tensor("output.weight")?,
    };
    let norm = gguf.tensor("output_norm.weight")?;
    Ok(ModelShape {
        layers: config.layers as u32,
        hidden: config.hidden as u32,
        heads: config.heads as u32,
        kv_heads: config.kv_heads as u32,
        head_dim: config.head_dim as u32,
        context_tokens_max: config.context_tokens_max,
        layer_weight_bytes,
        layer_products: layer_products.collect::<Result<_, _>>()?,
        embedding_bytes: embedding.packed_bytes(),
        head_bytes: output.packed_bytes() + norm.packed_bytes(),
        tied_bytes: match config.tied_embeddings {
            true => embedding.packed_bytes(),
            false => 0,
        },
        common_bytes: common_bytes(config, gguf),
        head_products: Products {
            kind: product_kind(output.format()?, precision::LOGITS),
            weights: weights(output),
        },
        kv_bytes_per_token_layer: (2 * config.kv_heads * config.kv.head_bytes(config.head_dim)) as u64,
        kv_cache: match config.kv {
            KvFormat::Bf16 => KvCacheFormat::Bf16,
            KvFormat::Int8 => KvCacheFormat::Int8,
        },
        position_bytes: position_bytes(config),
        workspace: workspace_shape(config),
        block_tokens,
    })
}

/// What decides how long a product takes. Float weights see their inputs as they are, or in bf16, whatever the precision.
pub fn product_kind(format: WeightFormat, precision: InputPrecision) -> ProductKind {
    let quantised = |format| match precision {
        InputPrecision::OneTerm => (format, InputTerms::One),
        InputPrecision::TwoTerms => (format, InputTerms::Two),
    };
    let (format, inputs) = match format {
        WeightFormat::F32 => (MatrixFormat::F32, InputTerms::One),
        WeightFormat::F16 => (MatrixFormat::F16, InputTerms::One),
        WeightFormat::Bf16 => (MatrixFormat::Bf16, InputTerms::One),
        // Rates of Q6_K are not measured: one row of it is read faster, many take longer, twice as long where there are tiles, which
        // have no part in it. Those of Q4_K are like those of Q4_1, and so are those of Q5_K but for an eighth more bytes and tiles.
        WeightFormat::Q8_0 | WeightFormat::Q5_0 | WeightFormat::Q6K => quantised(MatrixFormat::Q8_0),
        WeightFormat::Q4_0 => quantised(MatrixFormat::Q4_0),
        WeightFormat::Q4_1 | WeightFormat::Q4K | WeightFormat::Q5K => quantised(MatrixFormat::Q4_1),
    };
    ProductKind { format, inputs }
}

/// The matrices of a layer, and how finely each sees its input.
const MATRICES: [(&str, InputPrecision); 7] = [
    ("attn_q", precision::QUERY_KEY_VALUE),
    ("attn_k", precision::QUERY_KEY_VALUE),
    ("attn_v", precision::QUERY_KEY_VALUE),
    ("attn_output", precision::ATTENTION_OUTPUT),
    ("ffn_gate", precision::GATE_UP),
    ("ffn_up", precision::GATE_UP),
    ("ffn_down", precision::DOWN),
];

fn products_of_layer(gguf: &Gguf<'_>, layer: usize) -> Result<Vec<Products>, LoadError> {
    let mut found: BTreeMap<ProductKind, u64> = BTreeMap::new();
    for (name, precision) in MATRICES {
        let matrix = gguf.tensor(&format!("blk.{layer}.{name}.weight"))?;
        *found
            .entry(product_kind(matrix.format()?, precision))
            .or_default() += weights(matrix);
    }
    let products = found.into_iter();
    Ok(products
        .map(|(kind, weights)| Products { kind, weights })
        .collect())
}

/// What belongs to no layer, and every stage holds: as one does in the middle of a longer model, of whose layers the file has none.
fn common_bytes(config: &ModelConfig, gguf: &Gguf<'_>) -> u64 {
    let beyond = Stage::new(config.layers..config.layers + 1, config.layers + 2);
    let beyond = beyond.expect("a layer of a longer model");
    let common = gguf
        .tensors()
        .filter(|tensor| beyond.needs(tensor.name, config.output()));
    common.map(Tensor::packed_bytes).sum()
}

fn bytes_of_layer(gguf: &Gguf<'_>, layer: usize) -> u64 {
    let of_layer = |tensor: &&Tensor<'_>| layer_of(tensor.name) == Some(layer);
    gguf.tensors().filter(of_layer).map(Tensor::packed_bytes).sum()
}

fn weights(tensor: &Tensor<'_>) -> u64 {
    tensor
        .dimensions
        .iter()
        .map(|dimension| *dimension as u64)
        .product()
}
