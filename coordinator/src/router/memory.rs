//! What one router believes a replica's prefix cache to hold: what it sent there itself, as far as the pool reaches.

use proto::BlockHash;
use std::collections::BTreeMap;

/// Hashes of blocks by when they were last used, at most as many as the caller says.
///
/// It imitates the cache it is about: what was used longest ago goes first, and of one chain the end goes before its
/// beginning. So a block is here only if those before it were used later, and a chain's known part is a prefix.
#[derive(Debug, Default)]
pub(super) struct PrefixMemory {
    blocks: BTreeMap<BlockHash, Block>,
    by_use: BTreeMap<u64, BlockHash>,
    /// Counts uses: the age of a block.
    uses: u64,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    used: u64,
    proof: Proof,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    /// A stream that has it was sent, and has not been answered.
    Coming,
    /// A stream that has it was answered, so that it has been computed.
    Computed,
}

/// What was certain about a chain before it was sent, to be compared with what the replica says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Belief {
    /// Leading blocks that had been computed there.
    blocks: u32,
    /// When the last of them was used.
    used: u64,
}

impl PrefixMemory {
    /// Leading blocks of the chain that are there or will be.
    pub fn known(&self, chain: &[BlockHash]) -> u32 {
        chain.partition_point(|hash| self.blocks.contains_key(hash)) as u32
    }

    /// The chain is on its way. Keeps at most `blocks_max` blocks.
    pub fn send(&mut self, chain: &[BlockHash], blocks_max: usize) {
        self.use_blocks(chain, Proof::Coming, blocks_max);
    }

    /// The chain has been computed, `cached_blocks` of it from the cache where the replica said so. If that is less than
    /// was certain, then what was not used later than the missing block is gone as well.
    pub fn computed(
        &mut self,
        chain: &[BlockHash],
        belief: Belief,
        cached_blocks: Option<u32>,
        blocks_max: usize,
    ) {
        if cached_blocks.is_some_and(|blocks| blocks < belief.blocks) {
            self.forget_until(belief.used);
        }
        self.use_blocks(chain, Proof::Computed, blocks_max);
    }

    /// The chain was sent and will not be computed.
    pub fn withdraw(&mut self, chain: &[BlockHash]) {
        let computed = self.belief(chain).blocks as usize;
        for hash in &chain[computed..] {
            if let Some(block) = self.blocks.remove(hash) {
                self.by_use.remove(&block.used);
            }
        }
    }

    /// Asserts that both maps agree and that no more is remembered than the replica has blocks.
    pub fn check(&self, blocks_max: usize) {
        assert!(
            self.blocks.len() == self.by_use.len() && self.blocks.len() <= blocks_max,
            "{} blocks by {} uses, {blocks_max} may be remembered",
            self.blocks.len(),
            self.by_use.len()
        );
    }

    /// What is certain about a chain, before it is sent.
    pub fn belief(&self, chain: &[BlockHash]) -> Belief {
        let computed = |hash: &BlockHash| self.blocks.get(hash).filter(|b| b.proof == Proof::Computed);
        let blocks = chain.partition_point(|hash| computed(hash).is_some());
        Belief {
            blocks: blocks as u32,
            used: chain[..blocks]
                .last()
                .and_then(computed)
                .map_or(0, |block| block.used),
        }
    }

    /// From the end, so that the beginning of a chain is always the younger part.
    fn use_blocks(&mut self, chain: &[BlockHash], proof: Proof, blocks_max: usize) {
        for hash in chain.iter().rev() {
            self.uses += 1;
            let block = Block {
                used: self.uses,
                proof,
            };
            let entry = self.blocks.entry(*hash).or_insert(block);
            self.by_use.remove(&entry.used);
            entry.used = self.uses;
            if proof == Proof::Computed {
                entry.proof = proof;
            }
            self.by_use.insert(self.uses, *hash);
        }
        while self.blocks.len() > blocks_max {
            self.forget_oldest();
        }
    }

    fn forget_until(&mut self, used: u64) {
        while self
            .by_use
            .first_key_value()
            .is_some_and(|(oldest, _)| *oldest <= used)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, hash)) = self.by_use.pop_first() {
            self.blocks.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(hashes: &[u128]) -> Vec<BlockHash> {
        hashes.iter().map(|hash| BlockHash(*hash)).collect()
    }

    /// Sent and answered as believed.
    fn serve(memory: &mut PrefixMemory, hashes: &[u128], blocks_max: usize) {
        memory.send(&chain(hashes), blocks_max);
        memory.computed(&chain(hashes), Belief::default(), None, blocks_max);
    }

    #[test]
    fn a_prefix_is_known_as_far_as_it_was_sent() {
        let mut memory = PrefixMemory::default();
        serve(&mut memory, &[1, 2, 3], 10);
        assert_eq!(memory.known(&chain(&[1, 2, 9])), 2);
        assert_eq!(memory.known(&chain(&[9])), 0);
        assert_eq!(memory.known(&chain(&[1, 2, 3, 4])), 3);
    }

    #[test]
    fn what_was_used_longest_ago_is_forgotten_first_and_ends_before_beginnings() {
        let mut memory = PrefixMemory::default();
        serve(&mut memory, &[1, 2, 3], 5);
        serve(&mut memory, &[1, 5, 6], 5);
        serve(&mut memory, &[7], 5);
        memory.check(5);
        assert_eq!(memory.known(&chain(&[1, 2, 3])), 2);
        assert_eq!(memory.known(&chain(&[1, 5, 6])), 3);
        serve(&mut memory, &[11, 12, 13, 14, 15, 16, 17], 5);
        assert_eq!(memory.known(&chain(&[11, 12, 13, 14, 15, 16, 17])), 5);
    }

    #[test]
    fn a_hit_shorter_than_was_certain_takes_everything_older_along() {
        let mut memory = PrefixMemory::default();
        serve(&mut memory, &[20, 21], 100);
        serve(&mut memory, &[1, 2, 3], 100);
        serve(&mut memory, &[30, 31], 100);
        let belief = memory.belief(&chain(&[1, 2, 3]));
        memory.send(&chain(&[1, 2, 3]), 100);
        memory.computed(&chain(&[1, 2, 3]), belief, Some(1), 100);
        assert_eq!(memory.known(&chain(&[20, 21])), 0, "older");
        assert_eq!(memory.known(&chain(&[30, 31])), 2, "younger");
        assert_eq!(memory.known(&chain(&[1, 2, 3])), 3, "computed just now");
    }

    #[test]
    fn a_prefix_that_was_only_on_its_way_proves_nothing_by_being_missing() {
        let mut memory = PrefixMemory::default();
        serve(&mut memory, &[20, 21], 100);
        memory.send(&chain(&[1, 2]), 100);
        let belief = memory.belief(&chain(&[1, 2]));
        memory.send(&chain(&[1, 2]), 100);
        memory.computed(&chain(&[1, 2]), belief, Some(0), 100);
        assert_eq!(memory.known(&chain(&[20, 21])), 2);
    }

    #[test]
    fn what_was_withdrawn_is_not_there_and_what_was_computed_stays() {
        let mut memory = PrefixMemory::default();
        serve(&mut memory, &[1, 2], 100);
        memory.send(&chain(&[1, 2, 3]), 100);
        memory.withdraw(&chain(&[1, 2, 3]));
        assert_eq!(memory.known(&chain(&[1, 2, 3])), 2);
        memory.check(2);
    }
}
