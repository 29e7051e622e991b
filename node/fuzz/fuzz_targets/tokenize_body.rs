//! A body of `POST /tokenize`: refused or answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node_fuzz::gateway::{self, ENDPOINTS};
use node_fuzz::promises;
use node_fuzz::values::values;

/// A hundred choices with their stop strings, definitions of tools, a prompt's frame; the values are those of JSON of free
/// form (`VALUES_MAX` in node/src/http/free_json.rs bounds them).
const MEMORY_CONSTANT: usize = 1 << 20;
const VALUE_BYTES: usize = 512;

fuzz_target!(|body: &[u8]| {
    let memory_constant = MEMORY_CONSTANT + VALUE_BYTES * values(body);
    let answer = promises::keep(body.len(), memory_constant, || ENDPOINTS.tokenize(body));
    if let Err(refused) = answer {
        gateway::check(&refused);
    }
});
