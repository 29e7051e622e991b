//! The name of a block of tokens: a chained, salted hash.
//!
//! `hash(block k) = BLAKE3(hash(block k-1) ‖ tokens of block k)`, and the root before block 0 is derived from the
//! tenant's secret salt, the model's digest, the adapter and the numerics fingerprint. Two equal hashes mean the same
//! tokens after the same tokens, of the same tenant, on weights and arithmetic that give the same KV bytes; nobody can
//! probe another tenant's prompts by timing a prefix hit.

use crate::AdapterId;
use rkyv::{Archive, Deserialize, Serialize};

/// 128 bits of BLAKE3: collisions would need 2^64 blocks of one tenant.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct BlockHash(pub u128);

impl BlockHash {
    /// The parent of block 0.
    pub fn root(
        tenant_salt: &[u8; 32],
        model_digest: &[u8; 32],
        adapter: AdapterId,
        numerics: u64,
    ) -> BlockHash {
        let mut hasher = blake3::Hasher::new_keyed(tenant_salt);
        hasher.update(model_digest);
        hasher.update(&adapter.0.to_le_bytes());
        hasher.update(&numerics.to_le_bytes());
        truncated(&hasher)
    }

    /// The hash of the block that follows `self` and holds `tokens`.
    pub fn child(self, tokens: &[u32]) -> BlockHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.to_le_bytes());
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        truncated(&hasher)
    }

    /// The hashes of all *full* blocks of `tokens`, in order; a last partial block has no name.
    pub fn chain(self, tokens: &[u32], block_tokens: usize) -> Vec<BlockHash> {
        let mut parent = self;
        tokens
            .chunks_exact(block_tokens)
            .map(|block| {
                parent = parent.child(block);
                parent
            })
            .collect()
    }
}

fn truncated(hasher: &blake3::Hasher) -> BlockHash {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    BlockHash(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_full_blocks_only_and_depends_on_everything_before() {
        let root = BlockHash::root(&[1; 32], &[2; 32], AdapterId(0), 3);
        let chain = root.chain(&[1, 2, 3, 4, 5], 2);
        assert_eq!(
            chain,
            vec![root.child(&[1, 2]), root.child(&[1, 2]).child(&[3, 4])]
        );
        assert_ne!(chain[1], root.child(&[3, 4]));
    }

    #[test]
    fn another_tenant_model_adapter_or_arithmetic_has_another_root() {
        let root = BlockHash::root(&[1; 32], &[2; 32], AdapterId(0), 3);
        assert_ne!(root, BlockHash::root(&[9; 32], &[2; 32], AdapterId(0), 3));
        assert_ne!(root, BlockHash::root(&[1; 32], &[9; 32], AdapterId(0), 3));
        assert_ne!(root, BlockHash::root(&[1; 32], &[2; 32], AdapterId(9), 3));
        assert_ne!(root, BlockHash::root(&[1; 32], &[2; 32], AdapterId(0), 9));
    }
}
