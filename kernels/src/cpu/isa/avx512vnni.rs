//! VNNI: four byte products and their sum in one instruction. Everything else is AVX-512's.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::cpu::isa::avx512::{SixBits, Zmm, four, load_five_bits, load_nibbles};
use crate::cpu::matmul::quantised::{BlockDot, Origins, PackedBlock};
use crate::scalar::{BLOCK, FINE_BITS};

/// Formats whose blocks become unsigned bytes.
pub trait Unsigned {
    const BYTES: usize;
    /// Whether blocks have a minimum, which needs registers.
    const HAS_MINIMUM: bool;

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
    const HAS_MINIMUM: bool = false;

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

/// Blocks of nibbles, of which `ZERO` stands for 0: 8, or 0 in formats with a minimum.
pub struct Q4<const ZERO: i32>;

impl<const ZERO: i32> Unsigned for Q4<ZERO> {
    const BYTES: usize = 256;
    const HAS_MINIMUM: bool = ZERO == 0;

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

/// Blocks of `Q5_K`.
pub struct Q5;

impl Unsigned for Q5 {
    const BYTES: usize = 320;
    const HAS_MINIMUM: bool = true;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> [__m512i; 8] {
        // SAFETY: passed on to the caller.
        unsafe { load_five_bits(from) }
    }

    #[inline(always)]
    unsafe fn start(_origin: *const i32) -> __m512i {
        // SAFETY: the caller promises VNNI.
        unsafe { _mm512_setzero_si512() }
    }
}

impl<F: Unsigned> BlockDot for F {
    type Lanes = Zmm;
    type Block = [__m512i; 8];
    const BYTES: usize = F::BYTES;
    const GROUPS: usize = 2;
    const LEAVES_REGISTERS: bool = F::HAS_MINIMUM;

    #[inline(always)]
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> Self::Block {
        // SAFETY: passed on to the caller.
        unsafe { <F as Unsigned>::load(from.quants) }
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        origins: Origins,
    ) -> [Zmm; N] {
        // SAFETY: passed on to the caller.
        unsafe { Self::dots_of_groups::<TERMS, N, 1>(&[*block], q, origins)[0] }
    }

    #[inline(always)]
    unsafe fn dots_of_groups<const TERMS: usize, const N: usize, const G: usize>(
        blocks: &[Self::Block; G],
        q: *const i8,
        origins: Origins,
    ) -> [[Zmm; N]; G] {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut start = [_mm512_setzero_si512(); N];
            for (i, start) in start.iter_mut().enumerate() {
                *start = F::start(origins.whole.add(i));
            }
            match F::HAS_MINIMUM && TERMS * N == 4 && G == 2 {
                true => dots_of_four::<TERMS, N, G>(blocks, q, start),
                false => dots_unsigned::<TERMS, N, G>(blocks, q, start),
            }
        }
    }
}

/// Blocks of `Q6_K`: weights plus 32.
pub struct Q6;

impl BlockDot for Q6 {
    type Lanes = Zmm;
    type Block = SixBits;
    const BYTES: usize = 384;

    #[inline(always)]
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> SixBits {
        // SAFETY: passed on to the caller.
        unsafe { SixBits::load(from) }
    }

    /// Halves advance together, too.
    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &SixBits,
        q: *const i8,
        origins: Origins,
    ) -> [Zmm; N] {
        // SAFETY: the caller promises VNNI and the activations.
        unsafe {
            let (mut last, mut coarse) = ([[_mm512_setzero_si512(); 2]; N], [[_mm512_setzero_si512(); 2]; N]);
            for (i, last) in last.iter_mut().enumerate() {
                let [first, second] = origins.halves(i);
                *last = [_mm512_set1_epi32(4 * first), _mm512_set1_epi32(4 * second)];
            }
            for j in 0..4 {
                for half in 0..2 {
                    let (place, weights) = (4 * half + j, block.weights[4 * half + j]);
                    for i in 0..N {
                        let q = q.add(i * TERMS * BLOCK);
                        let fine = four(q.add((TERMS - 1) * BLOCK), place);
                        last[i][half] = _mm512_dpbusd_epi32(last[i][half], weights, fine);
                        if TERMS == 2 {
                            coarse[i][half] = _mm512_dpbusd_epi32(coarse[i][half], weights, four(q, place));
                        }
                    }
                }
            }
            let mut dots = [Zmm(_mm512_setzero_ps()); N];
            for i in 0..N {
                let mut sum = last[i];
                if TERMS == 2 {
                    sum[0] = both_terms(sum[0], coarse[i][0]);
                    sum[1] = both_terms(sum[1], coarse[i][1]);
                }
                let first = _mm512_mullo_epi32(sum[0], block.scales[0]);
                let second = _mm512_mullo_epi32(sum[1], block.scales[1]);
                dots[i] = Zmm(_mm512_cvtepi32_ps(_mm512_add_epi32(first, second)));
            }
            dots
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
                    _ => both_terms(one[group][i], other[group][i]),
                };
                dots[group][i] = Zmm(_mm512_cvtepi32_ps(sum));
            }
        }
        dots
    }
}

/// # Safety
/// The CPU must have AVX-512.
#[inline(always)]
unsafe fn both_terms(fine: __m512i, coarse: __m512i) -> __m512i {
    // SAFETY: the caller promises AVX-512.
    unsafe { _mm512_add_epi32(fine, _mm512_slli_epi32::<FINE_BITS>(coarse)) }
}

/// [`dots_unsigned`] of two groups and four times 32 activations, of four rows or of two in two terms. It leaves more registers and is a fiftieth
/// slower (docs/benchmarks.md).
///
/// # Safety
/// As [`dots_unsigned`]; `TERMS · N` is 4 and `G` is 2.
#[inline(always)]
unsafe fn dots_of_four<const TERMS: usize, const N: usize, const G: usize>(
    blocks: &[[__m512i; 8]; G],
    q: *const i8,
    start: [__m512i; N],
) -> [[Zmm; N]; G] {
    debug_assert!(TERMS * N == 4 && G == 2);
    // SAFETY: passed on to the caller.
    unsafe {
        let mut from = [_mm512_setzero_si512(); 4];
        for (i, start) in start.into_iter().enumerate() {
            from[TERMS * i + TERMS - 1] = start;
        }
        let sums = multiply_four(&blocks[0], &blocks[G - 1], q, from);
        let mut dots = [[Zmm(_mm512_setzero_ps()); N]; G];
        for (dots, sums) in dots.iter_mut().zip(sums) {
            for (i, dot) in dots.iter_mut().enumerate() {
                let fine = sums[TERMS * i + TERMS - 1];
                let sum = match TERMS {
                    1 => fine,
                    _ => both_terms(fine, sums[TERMS * i]),
                };
                *dot = Zmm(_mm512_cvtepi32_ps(sum));
            }
        }
        dots
    }
}

/// What [`multiply_four`] does with four activations of each row and four weights of each lane.
macro_rules! step {
    ($at:literal, $first:literal, $second:literal) => {
        concat!(
            step!(@row "0", $at, $first, $second, "a0", "b0"),
            step!(@row "32", $at, $first, $second, "a1", "b1"),
            step!(@row "64", $at, $first, $second, "a2", "b2"),
            step!(@row "96", $at, $first, $second, "a3", "b3"),
        )
    };
    (@row $row:literal, $at:literal, $first:literal, $second:literal, $a:literal, $b:literal) => {
        concat!(
            "vpdpbusd {", $a, "}, {", $first, "}, dword ptr [{q} + ", $row, " + ", $at, "]{{1to16}}\n",
            "vpdpbusd {", $b, "}, {", $second, "}, dword ptr [{q} + ", $row, " + ", $at, "]{{1to16}}\n",
        )
    };
}

/// Adds to `from` the products of 32 activations of four rows with a block of two groups. The instructions read activations themselves,
/// which leaves all other registers to weights and sums.
///
/// # Safety
/// The CPU must have VNNI, and `q` point to 128 values.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply_four(
    first: &[__m512i; 8],
    second: &[__m512i; 8],
    q: *const i8,
    from: [__m512i; 4],
) -> [[__m512i; 4]; 2] {
    let [mut a0, mut a1, mut a2, mut a3] = from;
    let [mut b0, mut b1, mut b2, mut b3] = from;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            step!("0", "v0", "w0"),
            step!("4", "v1", "w1"),
            step!("8", "v2", "w2"),
            step!("12", "v3", "w3"),
            step!("16", "v4", "w4"),
            step!("20", "v5", "w5"),
            step!("24", "v6", "w6"),
            step!("28", "v7", "w7"),
            q = in(reg) q,
            a0 = inout(zmm_reg) a0, a1 = inout(zmm_reg) a1, a2 = inout(zmm_reg) a2, a3 = inout(zmm_reg) a3,
            b0 = inout(zmm_reg) b0, b1 = inout(zmm_reg) b1, b2 = inout(zmm_reg) b2, b3 = inout(zmm_reg) b3,
            v0 = in(zmm_reg) first[0], v1 = in(zmm_reg) first[1], v2 = in(zmm_reg) first[2], v3 = in(zmm_reg) first[3],
            v4 = in(zmm_reg) first[4], v5 = in(zmm_reg) first[5], v6 = in(zmm_reg) first[6], v7 = in(zmm_reg) first[7],
            w0 = in(zmm_reg) second[0], w1 = in(zmm_reg) second[1], w2 = in(zmm_reg) second[2],
            w3 = in(zmm_reg) second[3], w4 = in(zmm_reg) second[4], w5 = in(zmm_reg) second[5],
            w6 = in(zmm_reg) second[6], w7 = in(zmm_reg) second[7],
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    [[a0, a1, a2, a3], [b0, b1, b2, b3]]
}
