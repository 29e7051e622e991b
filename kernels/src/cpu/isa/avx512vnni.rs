//! VNNI: four byte products and their sum in one instruction. Everything else is AVX-512's.

use std::arch::x86_64::*;

use crate::cpu::isa::avx512::{Zmm, four, load_nibbles};
use crate::cpu::matmul::quantised::BlockDot;
use crate::scalar::{BLOCK, FINE_BITS};

/// Formats whose blocks become unsigned bytes.
pub trait Unsigned {
    const BYTES: usize;

    /// # Safety
    /// The CPU must have VNNI, and `from` point to a packed block.
    unsafe fn load(from: *const u8) -> [__m512i; 8];

    /// What takes back that weights stand above their value; `origin` points to −8 times the sum of the activations.
    ///
    /// # Safety
    /// The CPU must have VNNI, and `origin` point to a value.
    unsafe fn start(origin: *const i32) -> __m512i;
}

/// Blocks of `Q8_0`: weights plus 128.
pub struct Q8;

impl Unsigned for Q8 {
    const BYTES: usize = 512;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> [__m512i; 8] {
        // SAFETY: the caller promises VNNI and 512 readable bytes.
        std::array::from_fn(|j| unsafe {
            _mm512_xor_si512(
                _mm512_loadu_si512(from.add(64 * j).cast()),
                _mm512_set1_epi8(-128),
            )
        })
    }

    #[inline(always)]
    unsafe fn start(origin: *const i32) -> __m512i {
        // SAFETY: the caller promises VNNI and a value.
        unsafe { _mm512_slli_epi32::<4>(_mm512_set1_epi32(*origin)) }
    }
}

/// Blocks of nibbles, of which `ZERO` (0 or 8) stands for 0.
pub struct Q4<const ZERO: i32>;

impl<const ZERO: i32> Unsigned for Q4<ZERO> {
    const BYTES: usize = 256;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> [__m512i; 8] {
        // SAFETY: passed on to the caller.
        unsafe { load_nibbles(from) }
    }

    #[inline(always)]
    unsafe fn start(origin: *const i32) -> __m512i {
        // SAFETY: the caller promises VNNI and a value.
        unsafe {
            match ZERO {
                0 => _mm512_setzero_si512(),
                _ => _mm512_set1_epi32(*origin),
            }
        }
    }
}

impl<F: Unsigned> BlockDot for F {
    type Lanes = Zmm;
    type Block = [__m512i; 8];
    const BYTES: usize = F::BYTES;
    const GROUPS: usize = 2;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Block {
        // SAFETY: passed on to the caller.
        unsafe { <F as Unsigned>::load(from) }
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        origin: *const i32,
    ) -> [Zmm; N] {
        // SAFETY: passed on to the caller.
        unsafe { Self::dots_of_groups::<TERMS, N, 1>(&[*block], q, origin)[0] }
    }

    #[inline(always)]
    unsafe fn dots_of_groups<const TERMS: usize, const N: usize, const G: usize>(
        blocks: &[Self::Block; G],
        q: *const i8,
        origin: *const i32,
    ) -> [[Zmm; N]; G] {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut start = [_mm512_setzero_si512(); N];
            for (i, start) in start.iter_mut().enumerate() {
                *start = F::start(origin.add(i));
            }
            dots_unsigned::<TERMS, N, G>(blocks, q, start)
        }
    }
}

/// Sums that are under way at a time, so that none waits for the one before it: an instruction takes four to five cycles, and two
/// begin in each.
const CHAINS: usize = 8;

/// Exact: 32 products of at most 255 · 127, or in two terms eight times as many, are far from the limits of 32 bits.
///
/// # Safety
/// The CPU must have VNNI, and `q` point to `32 · TERMS · N` values.
#[inline(always)]
unsafe fn dots_unsigned<const TERMS: usize, const N: usize, const G: usize>(
    blocks: &[[__m512i; 8]; G],
    q: *const i8,
    start: [__m512i; N],
) -> [[Zmm; N]; G] {
    // SAFETY: the caller promises VNNI and the activations.
    unsafe {
        let (mut one, mut other) = ([start; G], [[_mm512_setzero_si512(); N]; G]);
        for j in 0..8 {
            for i in 0..N {
                let fine = four(q.add(BLOCK * (TERMS * i + TERMS - 1)), j);
                for (group, weights) in blocks.iter().enumerate() {
                    // With few sums, those of odd places are apart.
                    let to = match TERMS == 1 && N * G < CHAINS && j % 2 == 1 {
                        true => &mut other[group][i],
                        false => &mut one[group][i],
                    };
                    *to = _mm512_dpbusd_epi32(*to, weights[j], fine);
                }
                if TERMS == 2 {
                    let coarse = four(q.add(BLOCK * TERMS * i), j);
                    for (to, weights) in other.iter_mut().zip(blocks) {
                        to[i] = _mm512_dpbusd_epi32(to[i], weights[j], coarse);
                    }
                }
            }
        }
        let mut dots = [[Zmm(_mm512_setzero_ps()); N]; G];
        for group in 0..G {
            for i in 0..N {
                let sum = match TERMS {
                    1 if N * G < CHAINS => _mm512_add_epi32(one[group][i], other[group][i]),
                    1 => one[group][i],
                    _ => _mm512_add_epi32(one[group][i], _mm512_slli_epi32::<FINE_BITS>(other[group][i])),
                };
                dots[group][i] = Zmm(_mm512_cvtepi32_ps(sum));
            }
        }
        dots
    }
}
