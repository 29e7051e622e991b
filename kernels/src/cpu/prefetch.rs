//! Asking for what will be read.
//!
//! Processors fetch ahead by themselves, but not beyond a page of 4 KiB, and the weights of a group come in two streams. One core
//! reads packed 4-bit weights 1.4 times as fast when it is told (docs/benchmarks.md).

const LINE: usize = 64;

/// Starts fetching the lines of `bytes` from `from` on, which may lie anywhere: what cannot be read is left alone.
#[inline(always)]
pub fn prefetch(from: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(LINE) {
        prefetch_line(from.wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it reads nothing and never faults, and every x86-64 has it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_line(_: *const u8) {}
