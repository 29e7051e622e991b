//! A body of `POST /tokenize`: refused or answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node_fuzz::gateway::{self, ENDPOINTS};
use node_fuzz::promises;

//
const MEMORY_CONSTANT: usize = 1 << 20;

fuzz_target!(|body: &[u8]| {
    let answer = promises::keep(body.len(), MEMORY_CONSTANT, || ENDPOINTS.tokenize(body));
    if let Err(refused) = answer {
        gateway::check(&refused);
    }
});
