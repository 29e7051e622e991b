use super::RopeConfig;
use kernels::RopePairing;
use kernels::RopeTable;

/// Sines and cosines up to `positions`. Angles are rounded to f32 as the reference implementation (transformers) does.
pub fn table(rope: &RopeConfig, positions: usize) -> RopeTable {
    let frequencies = frequencies(rope);
    let angles = (0..positions).flat_map(|position| {
        frequencies
            .iter()
            .map(move |frequency| f64::from(position as f32 * frequency))
    });
    let (cos, sin) = angles
        .map(|angle| (angle.cos() as f32, angle.sin() as f32))
        .unzip();
    // Llama's rows of query and key lie in GGUF files in the order that makes neighbours a pair.
    RopeTable {
        rotated: rope.rotated,
        pairing: RopePairing::Interleaved,
        cos,
        sin,
    }
}

fn frequencies(rope: &RopeConfig) -> Vec<f32> {
    let frequency = |pair: usize| {
        let exponent = -2.0 * pair as f64 / rope.rotated as f64;
        let factor = rope.factors.get(pair).copied().unwrap_or(1.0) * rope.linear;
        (f64::from(rope.base).powf(exponent) / f64::from(factor)) as f32
    };
    (0..rope.rotated / 2).map(frequency).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_grow_with_the_position_and_are_scaled() {
        let plain = RopeConfig {
            base: 100.0,
            rotated: 4,
            linear: 1.0,
            factors: Vec::new(),
        };
        let scaled = RopeConfig {
            linear: 2.0,
            factors: vec![1.0, 4.0],
            ..plain.clone()
        };
        let (plain, scaled) = (table(&plain, 3), table(&scaled, 3));
        assert_eq!(&plain.cos[..2], &[1.0, 1.0]);
        assert!((plain.sin[4] - 2f32.sin()).abs() < 1e-7);
        assert!((plain.sin[5] - 0.2f32.sin()).abs() < 1e-7);
        assert!((scaled.sin[4] - 1f32.sin()).abs() < 1e-7);
        assert!((scaled.sin[5] - 0.025f32.sin()).abs() < 1e-7);
    }
}
