//! Exact scalar arithmetic that every implementation shares: number formats, `exp`, and how activations are quantised.

/// Inputs per quantised block, of weights and of activations.
pub const BLOCK: usize = 32;

/// IEEE half precision, exactly.
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    let widened = match magnitude {
        0..=0x03ff => (magnitude as f32 * SUBNORMAL_F16).to_bits(),
        0x0400..=0x7bff => (magnitude << 13) + ((127 - 15) << 23),
        _ => (magnitude << 13) | 0x7f80_0000,
    };
    f32::from_bits(sign | widened)
}

/// 2⁻²⁴, the smallest half.
const SUBNORMAL_F16: f32 = f32::from_bits((127 - 24) << 23);

pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    rounded_to_bf16(value.to_bits()) as u16
}

/// Magnitudes order like their bits, and words of one width, chosen and masked, become vectors.
#[inline(always)]
fn rounded_to_bf16(bits: u32) -> u32 {
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let is_nan = bits & 0x7fff_ffff > f32::INFINITY.to_bits();
    if is_nan { bits >> 16 | 0x0040 } else { rounded }
}

/// What products with bf16 weights see of a number, an input or a weight: it in bf16, but nothing of a magnitude below 2⁻⁵⁰.
///
/// Without smaller ones no sum of products is ever subnormal: every product, and so every sum, is a multiple of 2⁻¹¹⁴. Units
/// that count subnormal numbers as zero (AMX) then give the bits of those that do not.
#[inline(always)]
pub fn factor_bf16(value: f32) -> u16 {
    (factor(value).to_bits() >> 16) as u16
}

/// The same as f32.
#[inline(always)]
pub fn factor(value: f32) -> f32 {
    let bits = value.to_bits();
    let counts = if bits & 0x7fff_ffff < FACTOR_MIN.to_bits() {
        0
    } else {
        u32::MAX
    };
    f32::from_bits((rounded_to_bf16(bits) & counts) << 16)
}

/// 2⁻⁵⁰.
pub const FACTOR_MIN: f32 = f32::from_bits((127 - 50) << 23);

/// `eˣ` to about one unit in the last place, by the same roundings everywhere.
///
/// `x` is clamped to `[EXP_MIN, EXP_MAX]` (the results are 0 and infinity there already), then `n = round(x · log2 e)`,
/// `r = x − n · ln 2` in two parts, a polynomial of degree 7 for `eʳ` (coefficients: S. Moshier's Cephes, `expf`), and
/// two multiplications by halves of `2ⁿ`, so that subnormal results need no special case. NaN gives NaN.
pub fn exp(x: f32) -> f32 {
    let x = if EXP_MIN > x { EXP_MIN } else { x };
    let x = if EXP_MAX < x { EXP_MAX } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = EXP_POLYNOMIAL[0];
    for coefficient in &EXP_POLYNOMIAL[1..] {
        p = p.mul_add(r, *coefficient);
    }
    let e = p.mul_add(r * r, r) + 1.0;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    e * power_of_two(n >> 1) * power_of_two(n.wrapping_sub(n >> 1))
}

fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Below this `eˣ` rounds to zero.
pub const EXP_MIN: f32 = -104.0;
/// Above this `eˣ` is infinite.
pub const EXP_MAX: f32 = 89.0;
/// 1.5 · 2²³: adding it rounds a small number to an integer, ties to even, found in the low bits of the sum.
pub const ROUND: f32 = 12_582_912.0;
/// The leading bits of ln 2, so that `n · LN_2_HIGH` is exact.
pub const LN_2_HIGH: f32 = 355.0 / 512.0;
pub const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Highest power first.
pub const EXP_POLYNOMIAL: [f32; 6] = [
    1.987_569_1e-4,
    1.398_199_9e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_5e-1,
    0.5,
];

/// `x / (1 + e⁻ˣ)`.
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The scale of a block of activations, and what to multiply by to quantise it.
///
/// `d = amax / 127`. A block whose `d` is zero or subnormal counts as zero; one with an infinity or a NaN has `d` = NaN
/// and zero integers, so that a poisoned row shows in its every output.
pub fn activation_scale(magnitude_max: f32) -> (f32, f32) {
    let d = magnitude_max / 127.0;
    if !magnitude_max.is_finite() {
        (f32::NAN, 0.0)
    } else if d < f32::MIN_POSITIVE {
        (0.0, 0.0)
    } else {
        (d, 1.0 / d)
    }
}

/// `x` quantised, by the inverse of [`activation_scale`]: rounded to nearest, ties to even.
#[inline(always)]
pub fn to_int8(x: f32, inverse: f32) -> i8 {
    ((x * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) as i8
}

/// Steps of the second term of an input in one of its first. Eight times a weight of 4 bits still fits a byte, so a tile
/// unit takes both terms in one product (decision 0006).
pub const FINE_STEPS: i32 = 1 << FINE_BITS;
pub const FINE_BITS: u32 = 3;

/// `x` in two terms, `FINE_STEPS · coarse + fine` being `x` quantised in steps that are so much finer, ties to even.
#[inline(always)]
pub fn to_two_terms(x: f32, inverse: f32) -> (i8, i8) {
    let shifted = (x * inverse) * FINE_STEPS as f32 + ROUND;
    let q = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let coarse = q.wrapping_add(FINE_STEPS / 2) >> FINE_BITS;
    (coarse as i8, q.wrapping_sub(coarse << FINE_BITS) as i8)
}

/// Magnitudes order like their bits, and a NaN is above all of them.
#[inline(always)]
pub fn magnitude_max(x: &[f32]) -> f32 {
    let most = x
        .iter()
        .fold(0, |most: u32, x| most.max(x.to_bits() & 0x7fff_ffff));
    f32::from_bits(most)
}

/// Adds 16 lanes pairwise: 0+8, 1+9, …; then 0+4, …; 0+2, 1+3; 0+1.
#[inline(always)]
pub fn add_lanes(lanes: [f32; 16]) -> f32 {
    fold_lanes(lanes, |low, high| low + high)
}

/// Puts 16 lanes together pairwise, in the order of [`add_lanes`].
#[inline(always)]
pub fn fold_lanes(lanes: [f32; 16], join: impl Fn(f32, f32) -> f32) -> f32 {
    // Step by step, each of a length of its own: of a loop over lengths compilers make no vectors.
    let lanes: [f32; 8] = halve(&lanes, &join);
    let lanes: [f32; 4] = halve(&lanes, &join);
    let [first, second] = halve(&lanes, &join);
    join(first, second)
}

#[inline(always)]
fn halve<const HALF: usize>(lanes: &[f32], join: impl Fn(f32, f32) -> f32) -> [f32; HALF] {
    let (low, high) = lanes.split_at(HALF);
    let mut joined = [0.0; HALF];
    for (joined, (low, high)) in joined.iter_mut().zip(low.iter().zip(high)) {
        *joined = join(*low, *high);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
        }
        assert!(worst < 2.0, "{worst} units");
    }

    #[test]
    fn exp_meets_its_limits() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(-104.0), 0.0);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-100.0) > 0.0);
    }

    #[test]
    fn halves_widen_exactly() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2f32.powi(-24)),
        ] {
            assert_eq!(f16_to_f32(bits), value);
        }
        assert_eq!(f16_to_f32(0x03ff), 1023.0 * 2f32.powi(-24));
        assert_eq!(f16_to_f32(0x8000).to_bits(), (-0.0f32).to_bits());
        assert_eq!(f16_to_f32(0xfc00), f32::NEG_INFINITY);
        assert!(f16_to_f32(0x7e00).is_nan());
    }

    #[test]
    fn factors_too_small_for_their_products_are_zero() {
        let least = 2f32.powi(-50);
        assert_eq!(bf16_to_f32(factor_bf16(least)), least);
        assert_eq!(bf16_to_f32(factor_bf16(-least)), -least);
        for value in [least * 0.99, -least / 2.0, f32::MIN_POSITIVE, 1e-45, 0.0, -0.0] {
            assert_eq!(factor_bf16(value), 0, "{value:e}");
        }
        for value in [1.0, -3.140625, 1e30] {
            assert_eq!(factor_bf16(value), f32_to_bf16(value));
            let weight = bf16_to_f32(f32_to_bf16(value));
            assert_eq!(factor_bf16(weight), f32_to_bf16(value), "what is in bf16 stays");
        }
        assert!(bf16_to_f32(factor_bf16(f32::NAN)).is_nan());
    }

    #[test]
    fn bf16_rounds_ties_to_even() {
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert!(bf16_to_f32(f32_to_bf16(f32::NAN)).is_nan());
        assert_eq!(bf16_to_f32(f32_to_bf16(f32::MAX)), f32::INFINITY);
    }

    #[test]
    fn two_terms_are_the_number_in_finer_steps() {
        let (d, inverse) = activation_scale(5.0);
        for i in -5000..=5000 {
            let x = i as f32 / 1000.0;
            let (coarse, fine) = to_two_terms(x, inverse);
            assert!(coarse >= -127 && (-4..4).contains(&fine), "{x}: {coarse}, {fine}");
            let q = FINE_STEPS * i32::from(coarse) + i32::from(fine);
            assert_eq!(q, (x * inverse * 8.0).round_ties_even() as i32, "{x}");
            assert!((x - q as f32 * d / 8.0).abs() <= d * 0.0626, "{x}: {q}");
        }
    }

    #[test]
    fn a_poisoned_block_is_nan_and_a_tiny_one_is_zero() {
        assert!(activation_scale(f32::INFINITY).0.is_nan());
        assert!(activation_scale(f32::NAN).0.is_nan());
        assert_eq!(activation_scale(1e-40), (0.0, 0.0));
        assert_eq!(activation_scale(127.0), (1.0, 1.0));
    }
}
