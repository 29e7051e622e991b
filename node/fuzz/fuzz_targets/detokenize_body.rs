//! A body of `POST /detokenize`: refused or answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node_fuzz::gateway::{self, ENDPOINTS};
use node_fuzz::promises;

/// What of the answer is written at a time.
const MEMORY_CONSTANT: usize = 1 << 20;

fuzz_target!(|body: &[u8]| {
    let answer = promises::keep(body.len(), MEMORY_CONSTANT, || ENDPOINTS.detokenize(body));
    if let Err(refused) = answer {
        gateway::check(&refused);
    }
});
