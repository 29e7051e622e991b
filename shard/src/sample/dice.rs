/// What a random number is a function of: nothing else may have influence on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dice {
    pub seed: u64,
    pub choice: u32,
    /// Of the token in the stream's output.
    pub position: u32,
    /// Which throw at this position.
    pub draw: u32,
}

impl Dice {
    /// Uniform in [0, 1), 53 bits: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
    /// 2011) with the seed as key and (position, draw, choice, 0) as counter.
    pub fn throw(&self) -> f64 {
        let words = philox([self.position, self.draw, self.choice, 0], self.seed);
        let bits = u64::from(words[0]) << 32 | u64::from(words[1]);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn philox(counter: [u32; 4], key: u64) -> [u32; 4] {
    let (mut words, mut low, mut high) = (counter, key as u32, (key >> 32) as u32);
    for _ in 0..10 {
        let first = 0xD251_1F53 * u64::from(words[0]);
        let second = 0xCD9E_8D57 * u64::from(words[2]);
        words = [
            (second >> 32) as u32 ^ words[1] ^ low,
            second as u32,
            (first >> 32) as u32 ^ words[3] ^ high,
            first as u32,
        ];
        low = low.wrapping_add(0x9E37_79B9);
        high = high.wrapping_add(0xBB67_AE85);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Random123's `kat_vectors`.
    #[test]
    fn philox_gives_the_published_numbers() {
        let zero = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
        let ones = [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd];
        assert_eq!(philox([0; 4], 0), zero);
        assert_eq!(philox([u32::MAX; 4], u64::MAX), ones);
        let pi = philox(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            0x299f_31d0_a409_3822,
        );
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn every_part_of_the_key_matters_and_numbers_are_even() {
        let dice = Dice {
            seed: 7,
            choice: 0,
            position: 0,
            draw: 0,
        };
        let others = [
            Dice { seed: 8, ..dice },
            Dice { choice: 1, ..dice },
            Dice { position: 1, ..dice },
            Dice { draw: 1, ..dice },
        ];
        for other in others {
            assert_ne!(dice.throw(), other.throw());
        }
        let mean = (0..100_000)
            .map(|position| Dice { position, ..dice }.throw())
            .sum::<f64>()
            / 100_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
