//! AVX-512 F, BW, DQ, VL: 16 lanes.

// Every function here but the `unsafe` ones takes a value, which exists only on a CPU with AVX-512.

use std::arch::x86_64::*;

use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::quantised::{BlockDot, Origins, PackedBlock};
use crate::scalar::{BLOCK, FINE_BITS, FINE_STEPS, ROUND};

#[derive(Clone, Copy)]
pub struct Zmm(pub __m512);

/// The lanes before `count`.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

impl Lanes for Zmm {
    const COUNT: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller promises AVX-512.
        Zmm(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises AVX-512 and 16 readable values.
        Zmm(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_low_bf16(from: *const u32) -> Self {
        // SAFETY: the caller promises AVX-512 and 16 readable pairs.
        Zmm(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_loadu_si512(from.cast()))) })
    }
    #[inline(always)]
    unsafe fn load_high_bf16(from: *const u32) -> Self {
        // SAFETY: the caller promises AVX-512 and 16 readable pairs.
        Zmm(unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
        })
    }
    #[inline(always)]
    unsafe fn load_int8(from: *const u32, byte: usize) -> Self {
        // SAFETY: the caller promises AVX-512 and 16 readable words.
        unsafe {
            let words = _mm512_loadu_si512(from.cast());
            let highest = match byte {
                0 => _mm512_slli_epi32::<24>(words),
                1 => _mm512_slli_epi32::<16>(words),
                2 => _mm512_slli_epi32::<8>(words),
                _ => words,
            };
            Zmm(_mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(highest)))
        }
    }
    #[inline(always)]
    unsafe fn load_byte(from: *const u16, byte: usize) -> Self {
        // SAFETY: the caller promises AVX-512 and 16 readable values.
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Zmm(_mm512_cvtepi32_ps(match byte {
                0 => _mm512_and_si512(words, _mm512_set1_epi32(255)),
                _ => _mm512_srli_epi32::<8>(words),
            }))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller promises AVX-512 and 16 readable values.
        Zmm(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller promises AVX-512 and `count` readable values; masked lanes are not touched.
        Zmm(unsafe { _mm512_maskz_loadu_ps(mask(count), from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises room for 16 values.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: the caller promises room for `count` values; masked lanes are not touched.
        unsafe { _mm512_mask_storeu_ps(to, mask(count), self.0) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        Zmm(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        Zmm(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        Zmm(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        Zmm(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn fma(self, factor: Self, term: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        Zmm(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        Zmm(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        Zmm(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn first(self, count: usize, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        Zmm(unsafe { _mm512_mask_blend_ps(mask(count), other.0, self.0) })
    }
    #[inline(always)]
    fn scale_by_power(self, shifted: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512.
        unsafe {
            Zmm(_mm512_scalef_ps(
                self.0,
                _mm512_sub_ps(shifted.0, _mm512_set1_ps(ROUND)),
            ))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: a value exists, so the CPU has AVX-512.
        unsafe {
            let [low, high] = halves(self.0);
            let lanes = _mm256_add_ps(low, high);
            let lanes = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
            let lanes = _mm_add_ps(lanes, _mm_movehl_ps(lanes, lanes));
            _mm_cvtss_f32(_mm_add_ss(lanes, _mm_movehdup_ps(lanes)))
        }
    }
    #[inline(always)]
    fn greatest(self) -> f32 {
        // SAFETY: a value exists, so the CPU has AVX-512.
        unsafe {
            let [low, high] = halves(self.0);
            let lanes = _mm256_max_ps(high, low);
            let lanes = _mm_max_ps(_mm256_extractf128_ps::<1>(lanes), _mm256_castps256_ps128(lanes));
            let lanes = _mm_max_ps(_mm_movehl_ps(lanes, lanes), lanes);
            _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(lanes), lanes))
        }
    }
}

/// # Safety
/// The CPU must have AVX-512.
#[inline(always)]
unsafe fn halves(lanes: __m512) -> [__m256; 2] {
    // SAFETY: the caller promises AVX-512.
    unsafe {
        let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes));
        [_mm512_castps512_ps256(lanes), _mm256_castpd_ps(high)]
    }
}

/// Blocks of `Q8_0`: magnitudes of the weights, and which of them are negative. Without VNNI bytes can only be multiplied
/// unsigned by signed, so the sign moves to the activation (never −128, so it can be negated).
pub struct Q8;

impl BlockDot for Q8 {
    type Lanes = Zmm;
    type Block = [(__m512i, __mmask64); 8];
    const BYTES: usize = 512;

    #[inline(always)]
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> Self::Block {
        // SAFETY: the caller promises AVX-512 and 512 readable bytes.
        std::array::from_fn(|j| unsafe {
            let w = _mm512_loadu_si512(from.quants.add(64 * j).cast());
            (_mm512_abs_epi8(w), _mm512_movepi8_mask(w))
        })
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        _origins: Origins,
    ) -> [Zmm; N] {
        // SAFETY: the caller promises AVX-512 and the activations.
        unsafe {
            let mut dots = [_mm512_setzero_si512(); N];
            for (j, (magnitude, negative)) in block.iter().enumerate() {
                for (i, dot) in dots.iter_mut().enumerate() {
                    let pairs = std::array::from_fn::<_, TERMS, _>(|term| {
                        let a = four(q.add((i * TERMS + term) * BLOCK), j);
                        let a = _mm512_mask_sub_epi8(a, *negative, _mm512_setzero_si512(), a);
                        // At most 2 · 128 · 127 in magnitude, which fits 16 bits.
                        _mm512_maddubs_epi16(*magnitude, a)
                    });
                    *dot = _mm512_add_epi32(*dot, add_terms(pairs));
                }
            }
            dots.map(|dot| Zmm(_mm512_cvtepi32_ps(dot)))
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
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> Self::Block {
        // SAFETY: the caller promises AVX-512 and 256 readable bytes.
        unsafe { load_nibbles(from.quants) }
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        origins: Origins,
    ) -> [Zmm; N] {
        // SAFETY: the caller promises AVX-512 and the activations.
        unsafe {
            // Eight of at most 2 · 15 · 127 in magnitude: their sum fits 16 bits.
            let dots = add_products::<TERMS, N, _>(block, q);
            std::array::from_fn(|i| {
                let dot = match ZERO {
                    0 => dots[i],
                    _ => _mm512_add_epi32(dots[i], _mm512_set1_epi32(*origins.whole.add(i))),
                };
                Zmm(_mm512_cvtepi32_ps(dot))
            })
        }
    }
}

/// Blocks of `Q5_K`.
pub struct Q5;

impl BlockDot for Q5 {
    type Lanes = Zmm;
    type Block = [__m512i; 8];
    const BYTES: usize = 320;

    #[inline(always)]
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> Self::Block {
        // SAFETY: the caller promises AVX-512 and 320 readable bytes.
        unsafe { load_five_bits(from.quants) }
    }

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        _origins: Origins,
    ) -> [Zmm; N] {
        // SAFETY: the caller promises AVX-512 and the activations.
        unsafe {
            // Four of at most 2 · 31 · 127 in magnitude: their sum fits 16 bits.
            let halves = block.as_chunks::<4>().0;
            let first = add_products::<TERMS, N, _>(&halves[0], q);
            let second = add_products::<TERMS, N, _>(&halves[1], q.add(BLOCK / 2));
            std::array::from_fn(|i| Zmm(_mm512_cvtepi32_ps(_mm512_add_epi32(first[i], second[i]))))
        }
    }
}

/// Blocks of `Q6_K`.
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

    #[inline(always)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &SixBits,
        q: *const i8,
        origins: Origins,
    ) -> [Zmm; N] {
        // SAFETY: the caller promises AVX-512 and the activations.
        unsafe {
            let mut dots = [_mm512_setzero_si512(); N];
            for (half, (scale, weights)) in block.scales.iter().zip(block.halves()).enumerate() {
                for (i, dot) in dots.iter_mut().enumerate() {
                    let origin = _mm512_set1_epi32(4 * origins.halves(i)[half]);
                    *dot = _mm512_add_epi32(*dot, _mm512_mullo_epi32(origin, *scale));
                    for (two, w) in weights.as_chunks::<2>().0.iter().enumerate() {
                        let pairs = std::array::from_fn::<_, TERMS, _>(|term| {
                            let q = q.add((i * TERMS + term) * BLOCK);
                            let a = [0, 1].map(|j| four(q, 4 * half + 2 * two + j));
                            // Each at most 2 · 63 · 127, so that the sum fits 16 bits.
                            _mm512_add_epi16(
                                _mm512_maddubs_epi16(w[0], a[0]),
                                _mm512_maddubs_epi16(w[1], a[1]),
                            )
                        });
                        *dot = _mm512_add_epi32(*dot, scale_terms(pairs, *scale));
                    }
                }
            }
            dots.map(|dot| Zmm(_mm512_cvtepi32_ps(dot)))
        }
    }
}

/// A block of `Q6_K`.
#[derive(Clone, Copy)]
pub struct SixBits {
    /// Weights plus 32, four per vector.
    pub weights: [__m512i; 8],
    /// Of each half of the weights.
    pub scales: [__m512i; 2],
}

impl SixBits {
    /// # Safety
    /// The CPU must have AVX-512, and what is pointed to be a packed block of `Q6_K`.
    #[inline(always)]
    pub unsafe fn load(from: PackedBlock) -> SixBits {
        // SAFETY: the caller promises AVX-512, 384 readable bytes and 32 of scales.
        unsafe {
            let mut weights = load_nibbles(from.quants);
            for half in 0..2 {
                let high = _mm512_loadu_si512(from.quants.add(256 + 64 * half).cast());
                let moved = [
                    _mm512_slli_epi16::<4>(high),
                    _mm512_slli_epi16::<2>(high),
                    high,
                    _mm512_srli_epi16::<2>(high),
                ];
                for (w, high) in weights[4 * half..].iter_mut().zip(moved) {
                    let high = _mm512_and_si512(high, _mm512_set1_epi8(48));
                    *w = _mm512_or_si512(*w, high);
                }
            }
            let both = _mm512_cvtepi16_epi32(_mm256_loadu_si256(from.scales.cast()));
            let first = _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(both));
            SixBits {
                weights,
                scales: [first, _mm512_srai_epi32::<8>(both)],
            }
        }
    }

    #[inline(always)]
    fn halves(&self) -> &[[__m512i; 4]] {
        self.weights.as_chunks::<4>().0
    }
}

/// Weights 0..16 of the block, four per vector, then 16..32.
///
/// # Safety
/// The CPU must have AVX-512, and 256 bytes be readable.
#[inline(always)]
pub unsafe fn load_nibbles(from: *const u8) -> [__m512i; 8] {
    // SAFETY: the caller promises AVX-512 and 256 readable bytes.
    unsafe {
        let half = _mm512_set1_epi8(15);
        let mut block = [_mm512_setzero_si512(); 8];
        for j in 0..4 {
            let both = _mm512_loadu_si512(from.add(64 * j).cast());
            block[j] = _mm512_and_si512(both, half);
            block[j + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(both), half);
        }
        block
    }
}

/// The same of `Q5_K`.
///
/// # Safety
/// The CPU must have AVX-512, and 320 bytes be readable.
#[inline(always)]
pub unsafe fn load_five_bits(from: *const u8) -> [__m512i; 8] {
    // SAFETY: the caller promises AVX-512 and 320 readable bytes.
    unsafe {
        let mut weights = load_nibbles(from);
        let fifth = _mm512_loadu_si512(from.add(256).cast());
        let moved = [
            _mm512_slli_epi16::<4>(fifth),
            _mm512_slli_epi16::<3>(fifth),
            _mm512_slli_epi16::<2>(fifth),
            _mm512_slli_epi16::<1>(fifth),
            fifth,
            _mm512_srli_epi16::<1>(fifth),
            _mm512_srli_epi16::<2>(fifth),
            _mm512_srli_epi16::<3>(fifth),
        ];
        for j in 0..8 {
            let fifth = _mm512_and_si512(moved[j], _mm512_set1_epi8(16));
            weights[j] = _mm512_or_si512(weights[j], fifth);
        }
        weights
    }
}

/// The dot products of each lane's weights with the first of `N` times 32 activations, added in 16 bits.
///
/// # Safety
/// The CPU must have AVX-512, `q` point to the activations, and the sums fit.
#[inline(always)]
unsafe fn add_products<const TERMS: usize, const N: usize, const COUNT: usize>(
    weights: &[__m512i; COUNT],
    q: *const i8,
) -> [__m512i; N] {
    // SAFETY: the caller promises AVX-512 and the activations.
    unsafe {
        let mut pairs = [[_mm512_setzero_si512(); TERMS]; N];
        for (j, w) in weights.iter().enumerate() {
            for (i, terms) in pairs.iter_mut().enumerate() {
                for (term, pairs) in terms.iter_mut().enumerate() {
                    let products = _mm512_maddubs_epi16(*w, four(q.add((i * TERMS + term) * BLOCK), j));
                    *pairs = _mm512_add_epi16(*pairs, products);
                }
            }
        }
        pairs.map(|terms| add_terms(terms))
    }
}

/// Sums of pairs, of the coarse term and the fine one where there are two, as sums of fours in steps of the last.
///
/// # Safety
/// The CPU must have AVX-512.
#[inline(always)]
unsafe fn add_terms<const TERMS: usize>(pairs: [__m512i; TERMS]) -> __m512i {
    // SAFETY: the caller promises AVX-512.
    unsafe {
        let last = _mm512_madd_epi16(pairs[TERMS - 1], _mm512_set1_epi16(1));
        match TERMS {
            1 => last,
            _ => {
                let coarse = _mm512_madd_epi16(pairs[0], _mm512_set1_epi16(FINE_STEPS as i16));
                _mm512_add_epi32(coarse, last)
            }
        }
    }
}

/// As [`add_terms`], and multiplied with a scale of eight bits.
///
/// # Safety
/// The CPU must have AVX-512.
#[inline(always)]
unsafe fn scale_terms<const TERMS: usize>(pairs: [__m512i; TERMS], scale: __m512i) -> __m512i {
    // SAFETY: the caller promises AVX-512.
    unsafe {
        let scale = _mm512_mask_blend_epi16(0xaaaa_aaaa, scale, _mm512_slli_epi32::<16>(scale));
        let last = _mm512_madd_epi16(pairs[TERMS - 1], scale);
        match TERMS {
            1 => last,
            _ => {
                let coarse = _mm512_madd_epi16(pairs[0], _mm512_slli_epi16::<FINE_BITS>(scale));
                _mm512_add_epi32(coarse, last)
            }
        }
    }
}

/// Activations `4j .. 4j + 4` for every lane.
///
/// # Safety
/// The CPU must have AVX-512, and `q` point to 32 values.
#[inline(always)]
pub unsafe fn four(q: *const i8, j: usize) -> __m512i {
    // SAFETY: the caller promises AVX-512 and 32 values, of which these are four.
    unsafe { _mm512_set1_epi32(q.add(4 * j).cast::<i32>().read_unaligned()) }
}
