//! Any bytes: an error or a file whose every part can be asked for, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shard::{Gguf, ModelConfig};

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes) else { return };
    for tensor in gguf.tensors() {
        let _ = (tensor.format(), tensor.floats(), tensor.kind_name());
    }
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "nested", "llama.block_count"] {
        let _ = (gguf.strings(key), gguf.i32s(key), gguf.f32s(key), gguf.string(key), gguf.u32(key));
    }
    let _ = ModelConfig::from_gguf(&gguf);
});
