//! Which two numbers of bf16 share a word.

/// Of numbers in a row: inputs of weights, dimensions of a key, positions of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairing {
    /// An even one and the odd one after it, which is the high half, as tile units want them.
    Neighbours,
    /// Of four the even ones, then the odd ones; the earlier is the high half, which [`PairLanes`](crate::cpu::lanes::PairLanes)
    /// multiply first.
    Crossed,
}

/// Numbers in two crossed words.
pub const QUAD: usize = 4;

impl Pairing {
    /// The word in which number `index` lies, and how far left in it.
    #[inline(always)]
    pub const fn place(self, index: usize) -> (usize, usize) {
        match self {
            Pairing::Neighbours => (index / 2, index % 2 * 16),
            Pairing::Crossed => (index / QUAD * 2 + index % 2, (1 - index / 2 % 2) * 16),
        }
    }

    /// The form in which weights are packed, as a number. Another layout of [`Weights`](crate::cpu::Weights) gets one that no layout ever
    /// had: nothing else tells a kept file of one from that of another.
    pub const fn packing(self) -> u32 {
        match self {
            Pairing::Neighbours => 4,
            Pairing::Crossed => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_of_neighbours_or_of_one_parity() {
        for (pairing, words) in [
            (Pairing::Neighbours, [[0, 1], [2, 3], [4, 5], [6, 7]]),
            (Pairing::Crossed, [[2, 0], [3, 1], [6, 4], [7, 5]]),
        ] {
            for (word, [low, high]) in words.into_iter().enumerate() {
                assert_eq!(pairing.place(low), (word, 0), "{pairing:?}");
                assert_eq!(pairing.place(high), (word, 16), "{pairing:?}");
            }
        }
    }

    #[test]
    fn kept_files_of_one_pairing_are_not_taken_for_those_of_another() {
        assert_ne!(Pairing::Neighbours.packing(), Pairing::Crossed.packing());
    }
}
