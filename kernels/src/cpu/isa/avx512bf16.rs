//! AVX-512 BF16: two products of bf16 are added to a sum in one instruction, `VDPBF16PS`. Everything else is AVX-512's.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use crate::cpu::isa::avx512::Zmm;
use crate::cpu::lanes::{Lanes, PairLanes, to_array};
use crate::scalar::{BLOCK, FACTOR_MIN, bf16_to_f32};

impl PairLanes for Zmm {
    type Words = __m512i;

    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> __m512i {
        // SAFETY: the caller promises AVX-512 and 16 readable words.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_word(word: u32) -> __m512i {
        // SAFETY: the caller promises AVX-512.
        unsafe { _mm512_set1_epi32(word as i32) }
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller promises AVX-512.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn add_products(self, a: __m512i, b: __m512i) -> Self {
        // SAFETY: the caller promises AVX-512 BF16; the types are of the same bits.
        unsafe {
            Zmm(_mm512_dpbf16_ps(
                self.0,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            ))
        }
    }
    #[inline(always)]
    unsafe fn add_two(sums: [Zmm; 2], words: [__m512i; 2], factors: *const u32) -> [Zmm; 2] {
        // SAFETY: the caller promises AVX-512 BF16 and two readable words.
        unsafe {
            let [first, second] = add_two(sums[0].0, sums[1].0, words, factors);
            [Zmm(first), Zmm(second)]
        }
    }
    #[inline(always)]
    unsafe fn cross(x: &[f32; BLOCK], words: *mut u32) {
        // SAFETY: the caller promises AVX-512 BF16 and room for 16 words; there are 32 numbers.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
            let counts = u32::from(counts(high)) << 16 | u32::from(counts(low));
            let halves = _mm512_maskz_cvtne2ps_pbh(counts, high, low);
            // Of each quad the third, the first, the fourth and the second.
            let order = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0b0a_0f0e_0908_0d0c, 0x0302_0706_0100_0504));
            let crossed = _mm512_shuffle_epi8(std::mem::transmute::<__m512bh, __m512i>(halves), order);
            _mm512_storeu_si512(words.cast(), crossed);
        }
    }
}

/// Which numbers count in products with bf16 ([`crate::scalar::factor`]); also those that are none.
///
/// # Safety
/// The CPU must have AVX-512.
#[inline(always)]
unsafe fn counts(numbers: __m512) -> __mmask16 {
    // SAFETY: the caller promises AVX-512.
    unsafe { _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(_mm512_abs_ps(numbers), _mm512_set1_ps(FACTOR_MIN)) }
}

/// The instructions read their factors themselves. Written as intrinsics, a factor for several sums would be loaded into a register
/// once for all of them, which takes longer: with such loads a core makes 211 to 226 GOP/s in a loop of 16 sums, without 236, which is
/// all it has (docs/decisions/0015).
///
/// # Safety
/// The CPU must have AVX-512 F and BF16; two words can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn add_two(
    mut first: __m512,
    mut second: __m512,
    words: [__m512i; 2],
    factors: *const u32,
) -> [__m512; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vdpbf16ps {first}, {first_words}, dword ptr [{factors}]{{1to16}}",
            "vdpbf16ps {second}, {second_words}, dword ptr [{factors} + 4]{{1to16}}",
            first = inout(zmm_reg) first,
            second = inout(zmm_reg) second,
            first_words = in(zmm_reg) words[0],
            second_words = in(zmm_reg) words[1],
            factors = in(reg) factors,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    [first, second]
}

/// Whether this CPU has the instruction, and it adds in the order of the manual.
pub fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        // SAFETY: looked at only where the CPU has both.
        has && unsafe { adds_in_order() }
    })
}

/// Whether the instruction, where it is available, multiplies faster than multiply-adds of f32 do. AMD's cores (measured: Zen 4) begin as many of the one
/// as of the other, and it makes two; cores with tiles begin a quarter as many (docs/decisions/0015).
pub fn pays() -> bool {
    let vendor = __cpuid(0);
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"AuthenticAMD"
}

/// An instruction that added otherwise would change tokens without a word, so it is tried before it is used: the product of the high
/// halves comes first, and each sum is rounded (Intel's Software Developer's Manual, volume 2, `VDPBF16PS`; AMD's describes it alike).
///
/// # Safety
/// The CPU must have AVX-512 F and BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn adds_in_order() -> bool {
    const SAMPLES: usize = 64;
    let mut state = 1u32;
    // Of either sign, with exponents from 2⁻¹⁶ to 2¹⁵.
    let mut pairs = || -> [u32; 16] {
        std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state & 0x8fff_8fff) + 0x3780_3780
        })
    };
    // In each way in which the instruction is used: lane by lane, and with one word for all lanes.
    let mut expected = [[0.0f32; 16]; 3];
    // SAFETY: the caller's promise; 16 words each.
    unsafe {
        let mut sums = [Zmm::splat(0.0); 3];
        (0..SAMPLES).all(|_| {
            let (a, b) = (pairs(), pairs());
            let (words, factors) = (Zmm::load_words(a.as_ptr()), Zmm::load_words(b.as_ptr()));
            let [first, second] = Zmm::add_two([sums[1], sums[2]], [words, factors], b.as_ptr());
            sums = [sums[0].add_products(words, factors), first, second];
            for (sums, (a, b)) in expected
                .iter_mut()
                .zip([(a, b), (a, [b[0]; 16]), (b, [b[1]; 16])])
            {
                for (sum, (a, b)) in sums.iter_mut().zip(a.into_iter().zip(b)) {
                    let half = |pair: u32, high: u32| bf16_to_f32((pair >> (16 * high)) as u16);
                    *sum = half(a, 1).mul_add(half(b, 1), *sum);
                    *sum = half(a, 0).mul_add(half(b, 0), *sum);
                }
            }
            (0..3).all(|way| to_array(sums[way]).map(f32::to_bits) == expected[way].map(f32::to_bits))
        })
    }
}
