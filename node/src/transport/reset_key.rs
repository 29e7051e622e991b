//! With what a node tells others that it has forgotten their connections.
//!
//! After a restart, packets of old connections still come in. A reset made with the key of before ends them at once,
//! where otherwise each peer would wait for its idle time. So the key is derived from the node's own, and is the same
//! in every life of the node.

use crate::random;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use sha2::{Digest, Sha256};
use std::time::Duration;
use subtle::ConstantTimeEq;

const BLOCK_BYTES: usize = 64;
const HASH_BYTES: usize = 32;

/// HMAC-SHA-256 (RFC 2104).
pub(super) struct ResetKey {
    secret: [u8; HASH_BYTES],
}

impl ResetKey {
    pub fn new(secret: [u8; HASH_BYTES]) -> ResetKey {
        ResetKey { secret }
    }

    fn hash(&self, data: &[u8]) -> [u8; HASH_BYTES] {
        let padded = |pad: u8| {
            let mut block = [pad; BLOCK_BYTES];
            for (byte, secret) in block.iter_mut().zip(self.secret) {
                *byte ^= secret;
            }
            block
        };
        let inner = Sha256::new_with_prefix(padded(0x36))
            .chain_update(data)
            .finalize();
        Sha256::new_with_prefix(padded(0x5c))
            .chain_update(inner)
            .finalize()
            .into()
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.hash(data));
    }

    fn signature_len(&self) -> usize {
        HASH_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        match self.hash(data).ct_eq(signature).into() {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

/// Ids of connections without any sign of who has made them: quinn's own kind would take those of an earlier life of
/// the node for damaged, and not answer them with a reset.
pub(super) struct RandomIds;

const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&random::bytes::<ID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    /// RFC 4231, test case 1, with the key as it is padded anyway.
    #[test]
    fn it_is_hmac_sha_256() {
        let mut secret = [0; 32];
        secret[..20].fill(0x0b);
        let key = ResetKey::new(secret);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex::encode(&key.hash(b"Hi There")), expected);
        let mut signature = [0; 32];
        key.sign(b"Hi There", &mut signature);
        assert!(key.verify(b"Hi There", &signature).is_ok());
        assert!(key.verify(b"Hi there", &signature).is_err());
    }
}
