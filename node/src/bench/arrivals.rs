//! When requests arrive.

use std::time::Duration;

/// One in almost three hours: who wants less wants something else, and times would end somewhere.
const RATE_MIN: f64 = 1e-4;

/// Arrivals per second, from the command line.
pub fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= RATE_MIN => Ok(rate),
        Ok(_) | Err(_) => Err(format!("a number of at least {RATE_MIN} is expected")),
    }
}

/// The times of `count` arrivals of a Poisson process: gaps are exponential with mean 1 ÷ `rate` seconds. The same
/// seed gives the same times.
pub fn poisson(seed: u64, rate: f64, count: u32) -> Vec<Duration> {
    let mut now_secs = 0.0;
    let mut next = |index: u32| {
        now_secs += -uniform(seed, index).ln() / rate;
        Duration::from_secs_f64(now_secs)
    };
    (0..count).map(&mut next).collect()
}

/// Above 0, at most 1.
fn uniform(seed: u64, index: u32) -> f64 {
    let bits = mixed(mixed(seed) ^ u64::from(index)) >> 11;
    (bits + 1) as f64 / (1u64 << 53) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
pub fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_rate_gives_times_and_lower_ones_are_refused() {
        let times = poisson(1, rate("0.0001").unwrap(), 100_000);
        assert!(times.is_sorted() && times[99_999] > Duration::from_secs(900_000_000));
        for wrong in ["1e-20", "0", "-1", "nan", "inf", "x"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn gaps_have_the_mean_and_the_spread_of_the_exponential() {
        let times = poisson(7, 50.0, 20_000);
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 50.0 - 1.0).abs() < 0.03, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
        assert_eq!(times, poisson(7, 50.0, 20_000));
        assert_ne!(times, poisson(8, 50.0, 20_000));
    }
}
