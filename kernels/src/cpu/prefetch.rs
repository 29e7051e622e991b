//! Asking for what will be read.
//!
//! Processors fetch ahead by themselves, but not beyond a page of 4 KiB, and the weights of a group come in two streams. The first
//! cache has too few requests under way to hide how long memory takes; so the second one is asked early, and the first one
//! for what the second has by then. One core reads packed 4-bit weights with one row at 0.93 of the pace at which it reads anything,
//! instead of 0.7 when only the first is asked (docs/benchmarks.md).

use std::ops::Range;

pub const LINE: usize = 64;

/// For the first cache: measured, 512 to 2,048 do as well.
const NEAR_BYTES: usize = 1024;
/// For the second one: measured, as good as twice as much; 2,048 and 16,384 are worse.
const FAR_BYTES: usize = 4096;

/// Starts fetching what lies ahead of the block of `bytes` at `from`. That may be anywhere: what cannot be read is left alone.
#[inline(always)]
pub fn ahead_of(from: *const u8, bytes: usize) {
    nearer(from, bytes);
    farther(from, bytes);
}

/// Starts fetching from memory into the second cache what lies ahead of the block of `bytes` at `from`.
#[inline(always)]
pub fn farther(from: *const u8, bytes: usize) {
    far(from.wrapping_add(FAR_BYTES), bytes);
}

/// Starts fetching from the second cache into the first what lies ahead of the block of `bytes` at `from`.
#[inline(always)]
pub fn nearer(from: *const u8, bytes: usize) {
    near(from.wrapping_add(NEAR_BYTES), bytes);
}

/// Of several passes over the same weights, each with other rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    pub index: usize,
    pub count: usize,
}

impl Pass {
    pub const ONLY: Pass = Pass { index: 0, count: 1 };

    /// Which of every `bytes` this pass asks for, if these are wanted when all passes are over: they arrive while all compute.
    #[inline(always)]
    pub fn part(self, bytes: usize) -> Range<usize> {
        let lines = bytes.div_ceil(LINE);
        let line = |index: usize| index * lines / self.count * LINE;
        line(self.index)..line(self.index + 1)
    }
}

/// Starts fetching the lines of `bytes` from `from` on into the second cache.
#[inline(always)]
pub fn far(from: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(LINE) {
        far_line(from.wrapping_add(offset));
    }
}

/// Starts fetching the lines of `bytes` from `from` on into the first cache.
#[inline(always)]
pub fn near(from: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(LINE) {
        near_line(from.wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn near_line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it reads nothing and never faults, and every x86-64 has it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn far_line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: as for the first cache.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn near_line(_: *const u8) {}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn far_line(_: *const u8) {}
