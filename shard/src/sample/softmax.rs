//! Loops over a whole vocabulary, written so that the compiler makes vectors of them.
//!
//! Everything is plain f32 and f64 multiplication and addition in a fixed order, so the bits are the same on every CPU.

const LANES: usize = 16;

/// The largest logit; `None` when any is infinite or not a number.
pub(super) fn finite_max(logits: &[f32]) -> Option<f32> {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut broken = [false; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (broken, logit) in broken.iter_mut().zip(chunk) {
            *broken |= logit.to_bits() & EXPONENT == EXPONENT;
        }
    }
    let finite = broken == [false; LANES] && rest.iter().all(|logit| logit.is_finite());
    finite.then(|| max(logits))
}

/// The largest; minus infinity when there is none.
pub(super) fn max(logits: &[f32]) -> f32 {
    // Passes over what is not a number.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *logit);
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().copied())
        .fold(f32::NEG_INFINITY, larger)
}

/// `weights[i] = exp((logits[i] - max) * scale)`; their sum. `max` is the largest logit, so weights are at most 1.
pub(super) fn exponentials(logits: &[f32], max: f32, scale: f32, weights: &mut Vec<f32>) -> f64 {
    weights.clear();
    weights.extend(logits.iter().map(|logit| exp((logit - max) * scale)));
    sum(weights)
}

/// `ln Σ exp(logits[i])`.
pub(super) fn log_sum_exp(logits: &[f32], max: f32) -> f64 {
    let mut lanes = [0f64; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(exp(logit - max));
        }
    }
    let rest = rest.iter().map(|logit| f64::from(exp(logit - max)));
    f64::from(max) + lanes.into_iter().chain(rest).sum::<f64>().ln()
}

fn sum(weights: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let (chunks, rest) = weights.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*weight);
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().map(|weight| f64::from(*weight)))
        .sum()
}

/// `e^x` for x ≤ 0, relative error below 2e-7; 0 below -87. After `expf` of S. Moshier's Cephes library.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it moves the units of a small number to the lowest bits of the mantissa.
    const ROUNDER: f32 = 12_582_912.0;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let whole = shifted - ROUNDER;
    let rest = clamped - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let mut series = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1] {
        series = series * rest + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    let value = (series * rest * rest + rest + 1.0) * power;
    if x > -87.0 { value } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_seven_digits() {
        for step in 0..200_000 {
            let x = -(step as f32) * 87.0 / 200_000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn anything_not_finite_anywhere_is_seen() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, 36] {
                let mut logits = vec![1.0; 37];
                logits[at] = broken;
                assert_eq!(finite_max(&logits), None);
            }
        }
        assert_eq!(finite_max(&[-3.0, f32::MAX, 2.0]), Some(f32::MAX));
    }

    #[test]
    fn log_sum_exp_is_that_of_plain_arithmetic() {
        let logits: Vec<f32> = (0..1003).map(|n| ((n * 37) % 101) as f32 / 9.0 - 5.0).collect();
        let exact = logits
            .iter()
            .map(|logit| f64::from(*logit).exp())
            .sum::<f64>()
            .ln();
        assert!((log_sum_exp(&logits, max(&logits)) - exact).abs() < 1e-7);
    }
}
