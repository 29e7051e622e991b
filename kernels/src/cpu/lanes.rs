//! What the kernels, each written once, need of an instruction set.

use crate::cpu::rounded::{self, PAIRS};
use crate::scalar::{self, BLOCK};

/// A vector of f32 lanes. All arithmetic rounds as IEEE 754 demands, lane by lane, so that every implementation gives
/// the same bits.
///
/// Values can only be made by `unsafe` functions, whose caller promises that the CPU has the instructions; whoever
/// holds a value may then use the safe ones. Everything inlines into a function that enables the instructions.
pub trait Lanes: Copy {
    /// Lanes per vector: 8 or 16.
    const COUNT: usize;
    /// Vectors that the CPU's registers hold.
    const REGISTERS: usize;

    /// # Safety
    /// The CPU must have the instructions of this implementation.
    unsafe fn splat(value: f32) -> Self;
    /// # Safety
    /// As [`splat`](Self::splat), and `COUNT` values can be read.
    unsafe fn load(from: *const f32) -> Self;
    /// The low halves of 32 bits, widened from bf16.
    ///
    /// # Safety
    /// As [`splat`](Self::splat), and `COUNT` pairs can be read.
    unsafe fn load_low_bf16(from: *const u32) -> Self;
    /// The high halves of 32 bits, widened from bf16.
    ///
    /// # Safety
    /// As [`splat`](Self::splat), and `COUNT` pairs can be read.
    unsafe fn load_high_bf16(from: *const u32) -> Self;
    /// The signed bytes number `byte` (0 to 3, from the lowest) of 32 bits, as numbers.
    ///
    /// # Safety
    /// As [`splat`](Self::splat), and `COUNT` words can be read.
    unsafe fn load_int8(from: *const u32, byte: usize) -> Self;
    /// The bytes number `byte` (0 or 1, from the lowest) of 16 bits, as numbers.
    ///
    /// # Safety
    /// As [`splat`](Self::splat), and `COUNT` values can be read.
    unsafe fn load_byte(from: *const u16, byte: usize) -> Self;
    /// Widened from half precision.
    ///
    /// # Safety
    /// As [`splat`](Self::splat), and `COUNT` values can be read.
    unsafe fn load_f16(from: *const u16) -> Self;
    /// The first `count` (at most `COUNT`) values, then zeros.
    ///
    /// # Safety
    /// As [`splat`](Self::splat), and `count` values can be read.
    unsafe fn load_part(from: *const f32, count: usize) -> Self;
    /// # Safety
    /// `COUNT` values can be written.
    unsafe fn store(self, to: *mut f32);
    /// The first `count` (at most `COUNT`) lanes.
    ///
    /// # Safety
    /// `count` values can be written.
    unsafe fn store_part(self, to: *mut f32, count: usize);

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self · factor + term`, rounded once.
    fn fma(self, factor: Self, term: Self) -> Self;
    /// `if self > other { self } else { other }`.
    fn max(self, other: Self) -> Self;
    /// `if self < other { self } else { other }`.
    fn min(self, other: Self) -> Self;
    /// The first `count` lanes of `self`, the rest of `other`.
    fn first(self, count: usize, other: Self) -> Self;
    /// Times two to the power of the integers in the low bits of `shifted`, which is they plus [`scalar::ROUND`].
    fn scale_by_power(self, shifted: Self) -> Self;
    /// Of 16 lanes, in the order of [`scalar::add_lanes`].
    #[inline(always)]
    fn sum(self) -> f32 {
        scalar::add_lanes(to_array(self))
    }
    /// The greatest of 16 lanes, none of which is NaN.
    #[inline(always)]
    fn greatest(self) -> f32 {
        scalar::fold_lanes(to_array(self), |low, high| if high > low { high } else { low })
    }
}

/// Lanes of a CPU that multiplies numbers of bf16 two by two.
pub trait PairLanes: Lanes {
    /// `COUNT` words of two halves.
    type Words: Copy;

    /// # Safety
    /// As [`splat`](Lanes::splat), and `COUNT` words can be read.
    unsafe fn load_words(from: *const u32) -> Self::Words;
    /// # Safety
    /// As [`splat`](Lanes::splat).
    unsafe fn splat_word(word: u32) -> Self::Words;
    /// Bit by bit.
    ///
    /// # Safety
    /// As [`splat`](Lanes::splat).
    unsafe fn and(a: Self::Words, b: Self::Words) -> Self::Words;
    /// Adds the product of the high halves, then that of the low ones, each as [`fma`](Lanes::fma) does. No number or sum may be
    /// subnormal: it would count as zero.
    ///
    /// # Safety
    /// As [`splat`](Lanes::splat).
    unsafe fn add_products(self, a: Self::Words, b: Self::Words) -> Self;
    /// Adds to each of two sums its products with one of the two words at `factors`, which is the same for all lanes.
    ///
    /// # Safety
    /// As [`add_products`](Self::add_products), and two words can be read.
    #[inline(always)]
    unsafe fn add_two(sums: [Self; 2], words: [Self::Words; 2], factors: *const u32) -> [Self; 2] {
        // SAFETY: passed on to the caller.
        unsafe {
            [
                sums[0].add_products(words[0], Self::splat_word(*factors)),
                sums[1].add_products(words[1], Self::splat_word(*factors.add(1))),
            ]
        }
    }
    /// [`rounded::cross`].
    ///
    /// # Safety
    /// As [`splat`](Lanes::splat), and there is room for 16 words.
    #[inline(always)]
    unsafe fn cross(x: &[f32; BLOCK], words: *mut u32) {
        // SAFETY: passed on to the caller.
        unsafe { words.cast::<[u32; PAIRS]>().write_unaligned(rounded::cross(x)) };
    }
}

/// [`scalar::exp`] of each lane.
///
/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
pub unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller promises the instructions.
    let splat = |value| unsafe { L::splat(value) };
    let x = splat(scalar::EXP_MIN).max(x);
    let x = splat(scalar::EXP_MAX).min(x);
    let shifted = x.fma(splat(std::f32::consts::LOG2_E), splat(scalar::ROUND));
    let n = shifted.sub(splat(scalar::ROUND));
    let r = n.fma(splat(-scalar::LN_2_LOW), n.fma(splat(-scalar::LN_2_HIGH), x));
    let mut p = splat(scalar::EXP_POLYNOMIAL[0]);
    for coefficient in &scalar::EXP_POLYNOMIAL[1..] {
        p = p.fma(r, splat(*coefficient));
    }
    p.fma(r.mul(r), r).add(splat(1.0)).scale_by_power(shifted)
}

/// 16 lanes as an array.
#[inline(always)]
pub fn to_array<L: Lanes>(vector: L) -> [f32; 16] {
    const { assert!(L::COUNT == 16) };
    let mut array = [0.0; 16];
    // SAFETY: the array has 16 = COUNT values.
    unsafe { vector.store(array.as_mut_ptr()) };
    array
}

/// Two vectors as one, for instruction sets with 8 lanes.
#[derive(Clone, Copy)]
pub struct Pair<L>(L, L);

impl<L: Lanes> Lanes for Pair<L> {
    const COUNT: usize = 2 * L::COUNT;
    const REGISTERS: usize = L::REGISTERS / 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Pair(L::splat(value), L::splat(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Pair(L::load(from), L::load(from.add(L::COUNT))) }
    }
    #[inline(always)]
    unsafe fn load_low_bf16(from: *const u32) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Pair(L::load_low_bf16(from), L::load_low_bf16(from.add(L::COUNT))) }
    }
    #[inline(always)]
    unsafe fn load_high_bf16(from: *const u32) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Pair(L::load_high_bf16(from), L::load_high_bf16(from.add(L::COUNT))) }
    }
    #[inline(always)]
    unsafe fn load_int8(from: *const u32, byte: usize) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Pair(L::load_int8(from, byte), L::load_int8(from.add(L::COUNT), byte)) }
    }
    #[inline(always)]
    unsafe fn load_byte(from: *const u16, byte: usize) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Pair(L::load_byte(from, byte), L::load_byte(from.add(L::COUNT), byte)) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: passed on to the caller.
        unsafe { Pair(L::load_f16(from), L::load_f16(from.add(L::COUNT))) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let low = count.min(L::COUNT);
        // SAFETY: passed on to the caller; `low` values come before those of the second vector.
        unsafe { Pair(L::load_part(from, low), L::load_part(from.add(low), count - low)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: passed on to the caller.
        unsafe {
            self.0.store(to);
            self.1.store(to.add(L::COUNT));
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        let low = count.min(L::COUNT);
        // SAFETY: passed on to the caller; `low` values come before those of the second vector.
        unsafe {
            self.0.store_part(to, low);
            self.1.store_part(to.add(low), count - low);
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Pair(self.0.add(other.0), self.1.add(other.1))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Pair(self.0.sub(other.0), self.1.sub(other.1))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Pair(self.0.mul(other.0), self.1.mul(other.1))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Pair(self.0.div(other.0), self.1.div(other.1))
    }
    #[inline(always)]
    fn fma(self, factor: Self, term: Self) -> Self {
        Pair(self.0.fma(factor.0, term.0), self.1.fma(factor.1, term.1))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Pair(self.0.max(other.0), self.1.max(other.1))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Pair(self.0.min(other.0), self.1.min(other.1))
    }
    #[inline(always)]
    fn first(self, count: usize, other: Self) -> Self {
        let low = count.min(L::COUNT);
        Pair(self.0.first(low, other.0), self.1.first(count - low, other.1))
    }
    #[inline(always)]
    fn scale_by_power(self, shifted: Self) -> Self {
        Pair(self.0.scale_by_power(shifted.0), self.1.scale_by_power(shifted.1))
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::cpu::isa::avx2::Ymm;
    use crate::cpu::isa::avx512::Zmm;
    use crate::cpu::level::Level;

    /// What is done to 16 numbers: `exp`, `sum` and `greatest`.
    type Results = ([f32; 16], f32, f32);

    #[inline(always)]
    unsafe fn results<L: Lanes>(numbers: &[f32; 16]) -> Results {
        // SAFETY: the caller promises the instructions; there are 16 numbers.
        unsafe {
            let lanes = L::load(numbers.as_ptr());
            (to_array(exp(lanes)), lanes.sum(), lanes.greatest())
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn by_avx2(numbers: &[f32; 16]) -> Results {
        // SAFETY: passed on to the caller.
        unsafe { results::<Pair<Ymm>>(numbers) }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn by_avx512(numbers: &[f32; 16]) -> Results {
        // SAFETY: passed on to the caller.
        unsafe { results::<Zmm>(numbers) }
    }

    fn check(name: &str, found: Results, numbers: &[f32; 16]) {
        let (exps, sum, greatest) = found;
        for (found, x) in exps.into_iter().zip(*numbers) {
            let expected = scalar::exp(x);
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{name}: exp of {x} is {found:e}, not {expected:e}");
        }
        if numbers.iter().all(|x| !x.is_nan()) {
            let expected = scalar::add_lanes(*numbers);
            let same = sum.to_bits() == expected.to_bits() || sum.is_nan() && expected.is_nan();
            assert!(
                same,
                "{name}: the sum of {numbers:?} is {sum:e}, not {expected:e}"
            );
            let expected = scalar::fold_lanes(*numbers, |low, high| if high > low { high } else { low });
            assert_eq!(greatest.to_bits(), expected.to_bits(), "{name}: of {numbers:?}");
        }
    }

    #[test]
    fn every_instruction_set_has_the_bits_of_scalars() {
        // Results that are subnormal, zero, infinite and none, and zeros of either sign.
        let extremes = [
            -87.4,
            -95.0,
            -103.2,
            -103.9,
            -104.0,
            -1e9,
            f32::NEG_INFINITY,
            -0.0,
            0.0,
            1.0,
            88.7,
            88.8,
            89.0,
            1e9,
            f32::INFINITY,
            f32::NAN,
        ];
        let mut all = vec![extremes, [-0.0; 16], [f32::NEG_INFINITY; 16]];
        let mut state = 1u32;
        for scale in [1e-6, 0.1, 30.0, 104.0] {
            for _ in 0..200 {
                all.push(std::array::from_fn(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state as i32) as f32 / 2.0f32.powi(31) * scale
                }));
            }
        }
        for numbers in &all {
            if has(Level::Avx2) {
                // SAFETY: the CPU has the level.
                check("AVX2", unsafe { by_avx2(numbers) }, numbers);
            }
            if has(Level::Avx512) {
                // SAFETY: as above.
                check("AVX-512", unsafe { by_avx512(numbers) }, numbers);
            }
        }
    }

    /// Words of one parity, by the instructions that make them.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn crossed(x: &[f32; BLOCK]) -> [u32; PAIRS] {
        let mut words = [0; PAIRS];
        // SAFETY: passed on to the caller; there is room for 16 words.
        unsafe { Zmm::cross(x, words.as_mut_ptr()) };
        words
    }

    #[test]
    fn bf16_is_rounded_and_crossed_as_by_scalars() {
        // Ties to even both ways, what no longer counts and what just does, subnormals, what rounds to infinity, and no numbers.
        let least = scalar::FACTOR_MIN.to_bits();
        let extremes = [
            0x3f80_8000,
            0x3f81_8000,
            0x3f80_7fff,
            0x3f80_8001,
            least,
            least - 1,
            least + 1,
            1,
            0x007f_ffff,
            0,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7fc0_0000,
            0x7f80_0001,
            0x7fff_ffff,
            0x3f80_0000,
        ];
        let signs = [0, 1 << 31].map(|sign| extremes.map(|bits| f32::from_bits(bits | sign)));
        let mut all = vec![*signs.as_flattened().as_array::<BLOCK>().unwrap()];
        let mut state = 1u32;
        for _ in 0..2000 {
            all.push(std::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from_bits(state)
            }));
        }
        for numbers in &all {
            if has(Level::Avx512Bf16) {
                // SAFETY: the CPU has the level.
                let found = unsafe { crossed(numbers) };
                assert_eq!(found, rounded::cross(numbers), "{numbers:?}");
            }
        }
    }

    fn has(level: Level) -> bool {
        Level::choose(Some(level)) == level
    }
}
