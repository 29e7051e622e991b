//! What this machine can read from memory: the limit of everything that reads weights once.

use kernels::Team;
use kernels::memory::Memory;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// More than caches hold, also those that virtual machines are told of.
const BYTES: usize = 1 << 30;
const ROUNDS: usize = 5;
const LINE: usize = 64;
/// Lines that are asked for ahead of the one that is read: none, or so far that they arrive in time. Which is faster, differs
/// between hosts, by a half.
const LINES_AHEAD: [usize; 3] = [0, 64, 128];

/// Bytes a second, in the best of some rounds, of threads that each read a part of their own in huge pages.
pub fn bandwidth(threads: usize) -> f64 {
    let mut memory = Memory::zeroed_in_huge_pages(BYTES).unwrap();
    // Pages that were never written would all be one.
    memory.fill(1);
    let mut team = Team::new(threads, |_| ()).unwrap();
    let mut fastest = Duration::MAX;
    for lines_ahead in [LINES_AHEAD; ROUNDS].concat() {
        let began = Instant::now();
        team.run(|thread, threads| {
            let part = memory.len() / threads;
            black_box(read(&memory[thread * part..][..part], lines_ahead));
        });
        fastest = fastest.min(began.elapsed());
    }
    BYTES as f64 / fastest.as_secs_f64()
}

fn read(part: &[u8], lines_ahead: usize) -> u64 {
    let mut sum = 0;
    for line in part.as_chunks::<LINE>().0 {
        if lines_ahead > 0 {
            ask_for(line.as_ptr().wrapping_add(lines_ahead * LINE));
        }
        for word in line.as_chunks::<8>().0 {
            sum ^= u64::from_le_bytes(*word);
        }
    }
    sum
}

#[cfg(target_arch = "x86_64")]
fn ask_for(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint; it reads nothing and never faults, and every x86-64 has it.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
fn ask_for(_: *const u8) {}
