//! What this machine can read from memory: the limit of everything that reads weights once.

use kernels::Team;
use kernels::memory::Memory;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// More than caches hold, also those that virtual machines are told of.
const BYTES: usize = 1 << 30;
const ROUNDS: usize = 5;

/// Bytes a second, in the best of some rounds, of threads that each read a part of their own in huge pages.
pub fn bandwidth(threads: usize) -> f64 {
    let mut memory = Memory::zeroed_in_huge_pages(BYTES).unwrap();
    // Pages that were never written would all be one.
    memory.fill(1);
    let mut team = Team::new(threads, |_| ()).unwrap();
    let mut fastest = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        team.run(|thread, threads| {
            let part = memory.len() / threads;
            let words = memory[thread * part..][..part].as_chunks::<8>().0;
            black_box(words.iter().fold(0, |sum, word| sum ^ u64::from_le_bytes(*word)));
        });
        fastest = fastest.min(began.elapsed());
    }
    BYTES as f64 / fastest.as_secs_f64()
}
