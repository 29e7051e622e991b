use crate::gguf::{Gguf, Tensor};
use crate::memory::ModelMemory;
use crate::model::{LoadError, ModelConfig};
use crate::stage::{Stage, layer_of};
use proto::cluster::ModelShape;

/// What has to be known of a model to place it: what its parts take, and how much there is to compute. Bytes are those of
/// the file; a device may pack weights a little tighter or looser.
pub fn model_shape(
    config: &ModelConfig,
    gguf: &Gguf<'_>,
    block_tokens: u32,
) -> Result<ModelShape, LoadError> {
    let memory = ModelMemory::of(config, gguf, &config.whole(), 1, block_tokens)?;
    let layer_weight_bytes: Vec<u64> = (0..config.layers)
        .map(|layer| bytes_of_layer(gguf, layer))
        .collect();
    let layer_weights: u64 = gguf
        .tensors()
        .filter(|tensor| tensor.name.starts_with("blk."))
        .map(weights)
        .sum();
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
        context_tokens_max: config.context_tokens_max,
        layer_weight_bytes,
        layer_weights: layer_weights / config.layers as u64,
        embedding_bytes: bytes(embedding),
        head_bytes: bytes(output) + bytes(norm),
        head_weights: weights(output),
        kv_bytes_per_token_layer: (2 * config.kv_heads * config.kv.head_bytes(config.head_dim)) as u64,
        workspace_bytes: memory.workspace_bytes + common_bytes(config, gguf),
        block_tokens,
    })
}

/// What every stage holds besides: as one does in the middle of a longer model, of whose layers the file has none.
fn common_bytes(config: &ModelConfig, gguf: &Gguf<'_>) -> u64 {
    let beyond = Stage::new(config.layers..config.layers + 1, config.layers + 2);
    let beyond = beyond.expect("a layer of a longer model");
    let common = gguf
        .tensors()
        .filter(|tensor| beyond.needs(tensor.name, config.output()));
    common.map(bytes).sum()
}

fn bytes_of_layer(gguf: &Gguf<'_>, layer: usize) -> u64 {
    let of_layer = |tensor: &&Tensor<'_>| layer_of(tensor.name) == Some(layer);
    gguf.tensors().filter(of_layer).map(bytes).sum()
}

fn bytes(tensor: &Tensor<'_>) -> u64 {
    tensor.bytes().len() as u64
}

fn weights(tensor: &Tensor<'_>) -> u64 {
    tensor
        .dimensions
        .iter()
        .map(|dimension| *dimension as u64)
        .product()
}
