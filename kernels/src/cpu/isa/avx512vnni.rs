//! VNNI: four byte products and their sum in one instruction. Everything else is AVX-512's.

use std::arch::x86_64::*;

use crate::cpu::isa::avx512::{Zmm, four, load_nibbles};
use crate::cpu::matmul::quantised::BlockDot;
use crate::scalar::{BLOCK, FINE_BITS};

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
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        origin: *const i32,
    ) -> [Zmm; N] {
        // SAFETY: passed on to the caller.
        unsafe {
            let start = std::array::from_fn(|i| _mm512_slli_epi32::<4>(_mm512_set1_epi32(*origin.add(i))));
            dots_unsigned::<TERMS, N>(block, q, start)
        }
    }
}

/// Blocks of nibbles, of which `ZERO` (0 or 8) stands for 0.
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
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        origin: *const i32,
    ) -> [Zmm; N] {
        // SAFETY: passed on to the caller.
        unsafe {
            let start = std::array::from_fn(|i| match ZERO {
                0 => _mm512_setzero_si512(),
                _ => _mm512_set1_epi32(*origin.add(i)),
            });
            dots_unsigned::<TERMS, N>(block, q, start)
        }
    }
}

/// Exact: 32 products of at most 255 · 127, or in two terms eight times as many, are far from the limits of 32 bits.
///
/// # Safety
/// The CPU must have VNNI, and `q` point to `32 · TERMS · N` values.
#[inline(always)]
unsafe fn dots_unsigned<const TERMS: usize, const N: usize>(
    block: &[__m512i; 8],
    q: *const i8,
    start: [__m512i; N],
) -> [Zmm; N] {
    // SAFETY: the caller promises VNNI and the activations.
    unsafe {
        let (mut one, mut other) = (start, [_mm512_setzero_si512(); N]);
        match TERMS {
            // Half of the block each.
            1 => {
                for j in [0, 2, 4, 6] {
                    for i in 0..N {
                        let q = q.add(BLOCK * i);
                        one[i] = _mm512_dpbusd_epi32(one[i], block[j], four(q, j));
                        other[i] = _mm512_dpbusd_epi32(other[i], block[j + 1], four(q, j + 1));
                    }
                }
            }
            // The fine term, and the coarse one.
            _ => {
                for (j, weights) in block.iter().enumerate() {
                    for i in 0..N {
                        let coarse = q.add(TERMS * BLOCK * i);
                        one[i] = _mm512_dpbusd_epi32(one[i], *weights, four(coarse.add(BLOCK), j));
                        other[i] = _mm512_dpbusd_epi32(other[i], *weights, four(coarse, j));
                    }
                }
                other = other.map(|coarse| _mm512_slli_epi32::<FINE_BITS>(coarse));
            }
        }
        std::array::from_fn(|i| Zmm(_mm512_cvtepi32_ps(_mm512_add_epi32(one[i], other[i]))))
    }
}
