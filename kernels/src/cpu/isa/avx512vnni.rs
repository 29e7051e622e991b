//! VNNI: four byte products and their sum in one instruction. Everything else is AVX-512's.

use std::arch::x86_64::*;

use crate::cpu::isa::avx512::{Zmm, four, load_nibbles};
use crate::cpu::matmul::quantised::BlockDot;

/// Blocks of `Q8_0` made unsigned: weights plus 128, which is taken back as 128 times the sum of the activations.
pub struct Q8;

impl BlockDot for Q8 {
    type Lanes = Zmm;
    type Block = [__m512i; 8];
    const BYTES: usize = 512;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Block {
        // SAFETY: the caller promises VNNI and 512 readable bytes.
        std::array::from_fn(|j| unsafe {
            _mm512_xor_si512(
                _mm512_loadu_si512(from.add(64 * j).cast()),
                _mm512_set1_epi8(-128),
            )
        })
    }

    #[inline(always)]
    unsafe fn dot(block: &Self::Block, q: *const i8, sum: i32) -> Zmm {
        // SAFETY: passed on to the caller.
        unsafe { dot_unsigned(block, q, -128 * sum) }
    }
}

/// Blocks of nibbles, of which `ZERO` stands for 0.
pub struct Q4<const ZERO: i32>;

impl<const ZERO: i32> BlockDot for Q4<ZERO> {
    type Lanes = Zmm;
    type Block = [__m512i; 8];
    const BYTES: usize = 256;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Block {
        // SAFETY: passed on to the caller.
        unsafe { load_nibbles(from) }
    }

    #[inline(always)]
    unsafe fn dot(block: &Self::Block, q: *const i8, sum: i32) -> Zmm {
        // SAFETY: passed on to the caller.
        unsafe { dot_unsigned(block, q, -ZERO * sum) }
    }
}

/// Exact: 32 products of at most 255 · 127 are far from the limits of 32 bits.
///
/// # Safety
/// The CPU must have VNNI, and `q` point to 32 values.
#[inline(always)]
unsafe fn dot_unsigned(block: &[__m512i; 8], q: *const i8, start: i32) -> Zmm {
    // SAFETY: the caller promises VNNI and 32 readable activations.
    unsafe {
        let mut even = _mm512_set1_epi32(start);
        let mut odd = _mm512_setzero_si512();
        for j in [0, 2, 4, 6] {
            even = _mm512_dpbusd_epi32(even, block[j], four(q, j));
            odd = _mm512_dpbusd_epi32(odd, block[j + 1], four(q, j + 1));
        }
        Zmm(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)))
    }
}
