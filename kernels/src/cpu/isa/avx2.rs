//! AVX2, FMA, F16C: 8 lanes.

// Every function here but the `unsafe` ones takes a value, which exists only on a CPU with AVX2.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::quantised::{BlockDot, Origins, PackedBlock};
use crate::scalar::{BLOCK, FINE_BITS, FINE_STEPS, ROUND};

#[derive(Clone, Copy)]
pub struct Ymm(pub __m256);

/// The lanes before `count`.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn mask(count: usize) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane)
    }
}

/// Where words are, of which other parts were loaded before. Does not say so to the compiler, which would keep what it
/// loaded in a register, of which attention has none to spare.
#[inline(always)]
fn hidden(mut from: *const u32) -> *const u32 {
    // SAFETY: nothing is done.
    unsafe { asm!("/* {0} */", inout(reg) from, options(pure, readonly, nostack, preserves_flags)) };
    from
}

impl Lanes for Ymm {
    const COUNT: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller promises AVX2.
        Ymm(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises AVX2 and 8 readable values.
        Ymm(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_low_bf16(from: *const u32) -> Self {
        // SAFETY: the caller promises AVX2 and 8 readable pairs.
        Ymm(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_loadu_si256(from.cast()))) })
    }
    #[inline(always)]
    unsafe fn load_high_bf16(from: *const u32) -> Self {
        // SAFETY: the caller promises AVX2 and 8 readable pairs.
        unsafe {
            let from = hidden(from);
            let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let high = _mm256_and_si256(mask, _mm256_loadu_si256(from.cast()));
            Ymm(_mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn load_int8(from: *const u32, byte: usize) -> Self {
        // SAFETY: the caller promises AVX2 and 8 readable words.
        unsafe {
            let from = if byte == 0 { from } else { hidden(from) };
            let words = _mm256_loadu_si256(from.cast());
            let highest = match byte {
                0 => _mm256_slli_epi32::<24>(words),
                1 => _mm256_slli_epi32::<16>(words),
                2 => _mm256_slli_epi32::<8>(words),
                _ => words,
            };
            Ymm(_mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(highest)))
        }
    }
    #[inline(always)]
    unsafe fn load_byte(from: *const u16, byte: usize) -> Self {
        // SAFETY: the caller promises AVX2 and 8 readable values.
        unsafe {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Ymm(_mm256_cvtepi32_ps(match byte {
                0 => _mm256_and_si256(words, _mm256_set1_epi32(255)),
                _ => _mm256_srli_epi32::<8>(words),
            }))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller promises AVX2 and 8 readable values.
        Ymm(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller promises AVX2 and `count` readable values; masked lanes are not touched.
        Ymm(unsafe { _mm256_maskload_ps(from, mask(count)) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises room for 8 values.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: the caller promises room for `count` values; masked lanes are not touched.
        unsafe { _mm256_maskstore_ps(to, mask(count), self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        Ymm(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        Ymm(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        Ymm(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        Ymm(unsafe { _mm256_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn fma(self, factor: Self, term: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        Ymm(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        Ymm(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        Ymm(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn first(self, count: usize, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        Ymm(unsafe { _mm256_blendv_ps(other.0, self.0, _mm256_castsi256_ps(mask(count))) })
    }
    #[inline(always)]
    fn scale_by_power(self, shifted: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2.
        unsafe {
            let round = _mm256_set1_epi32(ROUND.to_bits() as i32);
            let n = _mm256_sub_epi32(_mm256_castps_si256(shifted.0), round);
            let half = _mm256_srai_epi32::<1>(n);
            let scaled = _mm256_mul_ps(self.0, power_of_two(half));
            Ymm(_mm256_mul_ps(scaled, power_of_two(_mm256_sub_epi32(n, half))))
        }
    }
}

/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn power_of_two(n: __m256i) -> __m256 {
    // SAFETY: the caller promises AVX2.
    unsafe {
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
            n,
            _mm256_set1_epi32(127),
        )))
    }
}

/// Half a group's blocks of `Q8_0`, read where they are. Bytes can only be multiplied unsigned by signed, so the sign
/// moves to the activation (never −128, so it can be negated).
pub struct Q8;

impl BlockDot for Q8 {
    type Lanes = Ymm;
    type Block = *const u8;
    const BYTES: usize = 512;

    #[inline(always)]
    unsafe fn load(from: PackedBlock, first_lane: usize) -> *const u8 {
        from.quants.wrapping_add(4 * first_lane)
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        from: &*const u8,
        q: *const i8,
        _origins: Origins,
    ) -> [Ymm; N] {
        // SAFETY: the caller promises AVX2, the activations and a block, of which these are 8 rows.
        unsafe {
            let mut dots = [_mm256_setzero_si256(); N];
            for j in 0..8 {
                let w = _mm256_loadu_si256(from.add(64 * j).cast());
                let magnitude = _mm256_abs_epi8(w);
                for (i, dot) in dots.iter_mut().enumerate() {
                    let pairs = std::array::from_fn::<_, TERMS, _>(|term| {
                        let a = _mm256_sign_epi8(four(q.add((i * TERMS + term) * BLOCK), j), w);
                        // At most 2 · 128 · 127 in magnitude, which fits 16 bits.
                        _mm256_maddubs_epi16(magnitude, a)
                    });
                    *dot = _mm256_add_epi32(*dot, add_terms(pairs));
                }
            }
            dots.map(|dot| Ymm(_mm256_cvtepi32_ps(dot)))
        }
    }
}

/// Half a group's blocks of nibbles, of which `ZERO` (0 or 8) stands for 0.
pub struct Q4<const ZERO: i32>;

impl<const ZERO: i32> BlockDot for Q4<ZERO> {
    type Lanes = Ymm;
    type Block = [__m256i; 8];
    const BYTES: usize = 256;

    #[inline(always)]
    unsafe fn load(from: PackedBlock, first_lane: usize) -> Self::Block {
        // SAFETY: passed on to the caller.
        unsafe { load_nibbles(from.quants.add(4 * first_lane)) }
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        origins: Origins,
    ) -> [Ymm; N] {
        // SAFETY: the caller promises AVX2 and the activations.
        unsafe {
            // Eight of at most 2 · 15 · 127 in magnitude: their sum fits 16 bits.
            let dots = add_products::<TERMS, N, _>(block, q);
            std::array::from_fn(|i| {
                let dot = match ZERO {
                    0 => dots[i],
                    _ => _mm256_add_epi32(dots[i], _mm256_set1_epi32(*origins.whole.add(i))),
                };
                Ymm(_mm256_cvtepi32_ps(dot))
            })
        }
    }
}

/// Half a group's blocks of `Q5_K`.
pub struct Q5;

impl BlockDot for Q5 {
    type Lanes = Ymm;
    type Block = [__m256i; 8];
    const BYTES: usize = 320;

    #[inline(always)]
    unsafe fn load(from: PackedBlock, first_lane: usize) -> Self::Block {
        // SAFETY: passed on to the caller.
        unsafe { load_five_bits(from.quants.add(4 * first_lane)) }
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        _origins: Origins,
    ) -> [Ymm; N] {
        // SAFETY: the caller promises AVX2 and the activations.
        unsafe {
            // Four of at most 2 · 31 · 127 in magnitude: their sum fits 16 bits.
            let halves = block.as_chunks::<4>().0;
            let first = add_products::<TERMS, N, _>(&halves[0], q);
            let second = add_products::<TERMS, N, _>(&halves[1], q.add(BLOCK / 2));
            std::array::from_fn(|i| Ymm(_mm256_cvtepi32_ps(_mm256_add_epi32(first[i], second[i]))))
        }
    }
}

/// Half a group's blocks of `Q6_K`.
pub struct Q6;

/// A block of 8 rows.
#[derive(Clone, Copy)]
pub struct SixBits {
    /// Weights plus 32, four per vector.
    weights: [__m256i; 8],
    /// Of each half of the weights.
    scales: [__m256i; 2],
}

impl BlockDot for Q6 {
    type Lanes = Ymm;
    type Block = SixBits;
    const BYTES: usize = 384;

    #[inline(always)]
    unsafe fn load(from: PackedBlock, first_lane: usize) -> SixBits {
        // SAFETY: the caller promises AVX2 and a block, of which these are 8 rows.
        unsafe {
            let quants = from.quants.add(4 * first_lane);
            let mut weights = load_nibbles(quants);
            for half in 0..2 {
                let high = _mm256_loadu_si256(quants.add(256 + 64 * half).cast());
                let moved = [
                    _mm256_slli_epi16::<4>(high),
                    _mm256_slli_epi16::<2>(high),
                    high,
                    _mm256_srli_epi16::<2>(high),
                ];
                for (w, high) in weights[4 * half..].iter_mut().zip(moved) {
                    *w = _mm256_or_si256(*w, _mm256_and_si256(high, _mm256_set1_epi8(48)));
                }
            }
            let both = _mm256_cvtepi16_epi32(_mm_loadu_si128(from.scales.add(2 * first_lane).cast()));
            let first = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(both));
            SixBits {
                weights,
                scales: [first, _mm256_srai_epi32::<8>(both)],
            }
        }
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &SixBits,
        q: *const i8,
        origins: Origins,
    ) -> [Ymm; N] {
        // SAFETY: the caller promises AVX2 and the activations.
        unsafe {
            let mut dots = [_mm256_setzero_si256(); N];
            let halves = block.weights.as_chunks::<4>().0;
            for (half, (scale, weights)) in block.scales.iter().zip(halves).enumerate() {
                for (i, dot) in dots.iter_mut().enumerate() {
                    let origin = _mm256_set1_epi32(4 * origins.halves(i)[half]);
                    *dot = _mm256_add_epi32(*dot, _mm256_mullo_epi32(origin, *scale));
                    for (two, w) in weights.as_chunks::<2>().0.iter().enumerate() {
                        let pairs = std::array::from_fn::<_, TERMS, _>(|term| {
                            let q = q.add((i * TERMS + term) * BLOCK);
                            let a = [0, 1].map(|j| four(q, 4 * half + 2 * two + j));
                            // Each at most 2 · 63 · 127, so that the sum fits 16 bits.
                            _mm256_add_epi16(
                                _mm256_maddubs_epi16(w[0], a[0]),
                                _mm256_maddubs_epi16(w[1], a[1]),
                            )
                        });
                        *dot = _mm256_add_epi32(*dot, scale_terms(pairs, *scale));
                    }
                }
            }
            dots.map(|dot| Ymm(_mm256_cvtepi32_ps(dot)))
        }
    }
}

/// Of 8 rows, weights 0..16 of the block, four per vector, then 16..32.
///
/// # Safety
/// The CPU must have AVX2, and `from` point to the first of 8 rows of a packed block.
#[inline(always)]
unsafe fn load_nibbles(from: *const u8) -> [__m256i; 8] {
    // SAFETY: the caller promises AVX2 and the rows.
    unsafe {
        let half = _mm256_set1_epi8(15);
        let mut block = [_mm256_setzero_si256(); 8];
        for j in 0..4 {
            let both = _mm256_loadu_si256(from.add(64 * j).cast());
            block[j] = _mm256_and_si256(both, half);
            block[j + 4] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), half);
        }
        block
    }
}

/// The same of `Q5_K`.
///
/// # Safety
/// As [`load_nibbles`].
#[inline(always)]
unsafe fn load_five_bits(from: *const u8) -> [__m256i; 8] {
    // SAFETY: the caller promises AVX2 and the rows.
    unsafe {
        let mut weights = load_nibbles(from);
        let fifth = _mm256_loadu_si256(from.add(256).cast());
        let moved = [
            _mm256_slli_epi16::<4>(fifth),
            _mm256_slli_epi16::<3>(fifth),
            _mm256_slli_epi16::<2>(fifth),
            _mm256_slli_epi16::<1>(fifth),
            fifth,
            _mm256_srli_epi16::<1>(fifth),
            _mm256_srli_epi16::<2>(fifth),
            _mm256_srli_epi16::<3>(fifth),
        ];
        for j in 0..8 {
            let fifth = _mm256_and_si256(moved[j], _mm256_set1_epi8(16));
            weights[j] = _mm256_or_si256(weights[j], fifth);
        }
        weights
    }
}

/// The dot products of each lane's weights with the first of `N` times 32 activations, added in 16 bits.
///
/// # Safety
/// The CPU must have AVX2, `q` point to the activations, and the sums fit.
#[inline(always)]
unsafe fn add_products<const TERMS: usize, const N: usize, const COUNT: usize>(
    weights: &[__m256i; COUNT],
    q: *const i8,
) -> [__m256i; N] {
    // SAFETY: the caller promises AVX2 and the activations.
    unsafe {
        let mut pairs = [[_mm256_setzero_si256(); TERMS]; N];
        for (j, w) in weights.iter().enumerate() {
            for (i, terms) in pairs.iter_mut().enumerate() {
                for (term, pairs) in terms.iter_mut().enumerate() {
                    let products = _mm256_maddubs_epi16(*w, four(q.add((i * TERMS + term) * BLOCK), j));
                    *pairs = _mm256_add_epi16(*pairs, products);
                }
            }
        }
        pairs.map(|terms| add_terms(terms))
    }
}

/// As [`add_terms`], and multiplied with a scale of eight bits.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn scale_terms<const TERMS: usize>(pairs: [__m256i; TERMS], scale: __m256i) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let scale = _mm256_blend_epi16::<0xaa>(scale, _mm256_slli_epi32::<16>(scale));
        let last = _mm256_madd_epi16(pairs[TERMS - 1], scale);
        match TERMS {
            1 => last,
            _ => {
                let coarse = _mm256_madd_epi16(pairs[0], _mm256_slli_epi16::<{ FINE_BITS as i32 }>(scale));
                _mm256_add_epi32(coarse, last)
            }
        }
    }
}

/// Sums of pairs, of the coarse term and the fine one where there are two, as sums of fours in steps of the last.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn add_terms<const TERMS: usize>(pairs: [__m256i; TERMS]) -> __m256i {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let last = _mm256_madd_epi16(pairs[TERMS - 1], _mm256_set1_epi16(1));
        match TERMS {
            1 => last,
            _ => {
                let coarse = _mm256_madd_epi16(pairs[0], _mm256_set1_epi16(FINE_STEPS as i16));
                _mm256_add_epi32(coarse, last)
            }
        }
    }
}

/// Activations `4j .. 4j + 4` for every lane.
///
/// # Safety
/// The CPU must have AVX2, and `q` point to 32 values.
#[inline(always)]
unsafe fn four(q: *const i8, j: usize) -> __m256i {
    // SAFETY: the caller promises AVX2 and 32 values, of which these are four.
    unsafe { _mm256_set1_epi32(q.add(4 * j).cast::<i32>().read_unaligned()) }
}
