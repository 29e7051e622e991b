//! A body of `POST /v1/completions`: refused, or tokenized for the engine.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node_fuzz::gateway::{self, ENDPOINTS};
use node_fuzz::promises;

/// A hundred choices with their stop strings, and a prompt for each.
const MEMORY_CONSTANT: usize = 1 << 20;

fuzz_target!(|body: &[u8]| {
    let answer = promises::keep(body.len(), MEMORY_CONSTANT, || ENDPOINTS.completion(body));
    match answer {
        Ok(streams) => assert!(streams.iter().all(|stream| !stream.prompt.is_empty())),
        Err(refused) => gateway::check(&refused),
    }
});
