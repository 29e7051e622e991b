//! Where weight formats have their scales and minima, and how these are read.

use crate::cpu::lanes::Lanes;
use crate::cpu::weights::GROUP;

/// Blocks of 32 that share something: 256 weights.
pub const SUPER_BLOCK: usize = 8;

/// What a format has beside the weights of 16 rows.
pub trait Scales {
    /// Bytes for each block of 32.
    const BYTES: usize;
    /// Bytes for each [`SUPER_BLOCK`].
    const SUPER_BYTES: usize;
    const HAS_MINIMUM: bool;

    /// Scales, and minima if there are any, of the lanes from `first_lane` on, all exact.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`, and so many bytes be where `at` points.
    unsafe fn load<L: Lanes>(at: ScalesAt, first_lane: usize) -> (L, L);
}

/// Those of one block.
#[derive(Clone, Copy)]
pub struct ScalesAt {
    pub block: *const u8,
    pub super_block: *const u8,
}

/// Numbers of 16 bits, one of each row.
const LINE: usize = GROUP * 2;

/// `[row]` f16 for each block.
pub struct Scale;

impl Scales for Scale {
    const BYTES: usize = LINE;
    const SUPER_BYTES: usize = 0;
    const HAS_MINIMUM: bool = false;

    #[inline(always)]
    unsafe fn load<L: Lanes>(at: ScalesAt, first_lane: usize) -> (L, L) {
        // SAFETY: passed on to the caller.
        let scale = unsafe { L::load_f16(at.block.add(first_lane * 2).cast()) };
        (scale, scale)
    }
}

/// `[scale or minimum][row]` f16 for each block.
pub struct ScaleMinimum;

impl Scales for ScaleMinimum {
    const BYTES: usize = 2 * LINE;
    const SUPER_BYTES: usize = 0;
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    unsafe fn load<L: Lanes>(at: ScalesAt, first_lane: usize) -> (L, L) {
        let from = at.block.wrapping_add(first_lane * 2);
        // SAFETY: passed on to the caller.
        unsafe { (L::load_f16(from.cast()), L::load_f16(from.add(LINE).cast())) }
    }
}

/// `[row][scale or minimum]` bytes `s` and `t` for each block, `[scale or minimum][row]` f16 `d` and `e` for each super-block:
/// scales are `d · s`, minima `−e · t`.
pub struct SuperScaleMinimum;

impl Scales for SuperScaleMinimum {
    const BYTES: usize = LINE;
    const SUPER_BYTES: usize = 2 * LINE;
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    unsafe fn load<L: Lanes>(at: ScalesAt, first_lane: usize) -> (L, L) {
        let bytes = at.block.wrapping_add(first_lane * 2).cast::<u16>();
        let halves = at.super_block.wrapping_add(first_lane * 2);
        // SAFETY: passed on to the caller.
        unsafe {
            let (d, e) = (L::load_f16(halves.cast()), L::load_f16(halves.add(LINE).cast()));
            let minimum = L::splat(-0.0).sub(e).mul(L::load_byte(bytes, 1));
            (d.mul(L::load_byte(bytes, 0)), minimum)
        }
    }
}

/// `[row]` f16 for each super-block. For each block there are `[row]` pairs of bytes besides, which its products are made with.
pub struct SuperScale;

impl Scales for SuperScale {
    const BYTES: usize = LINE;
    const SUPER_BYTES: usize = LINE;
    const HAS_MINIMUM: bool = false;

    #[inline(always)]
    unsafe fn load<L: Lanes>(at: ScalesAt, first_lane: usize) -> (L, L) {
        // SAFETY: passed on to the caller.
        let scale = unsafe { L::load_f16(at.super_block.add(first_lane * 2).cast()) };
        (scale, scale)
    }
}
