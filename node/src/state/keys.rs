//! API keys: `ck_<key id>_<secret>`.
//!
//! The id is public and finds the record; the secret is 128 random bits, held only as a SHA-256 hash (of random bits a
//! fast hash is enough) and compared in constant time.

use super::{NodeState, StateError};
use crate::{clock, hex, random};
use coordinator::cluster_state::ClusterState;
use proto::TenantId;
use proto::cluster::{ClusterCommand, KeyRecord, TenantRecord};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The tenant of a fresh cluster's first key, and of everybody where there is no authentication.
pub const DEFAULT_TENANT: TenantId = TenantId(1);

const PREFIX: &str = "ck_";

/// A new key: the text is for its holder alone and is not kept.
pub struct NewKey {
    pub text: String,
    pub record: KeyRecord,
}

impl NewKey {
    pub fn draw(tenant: TenantId) -> NewKey {
        let key_id = hex::encode(&random::bytes::<6>());
        let secret = hex::encode(&random::bytes::<16>());
        let text = format!("{PREFIX}{key_id}_{secret}");
        let record = KeyRecord {
            key_id,
            secret_hash: hash(&secret),
            tenant,
            created_at_secs: clock::unix_secs(),
        };
        NewKey { text, record }
    }
}

/// `None`: not a key, unknown or revoked.
pub fn tenant_of(key: &str, state: &ClusterState) -> Option<TenantId> {
    let (key_id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let record = state.key(key_id)?;
    let equal: bool = record.secret_hash.ct_eq(&hash(secret)).into();
    equal.then_some(record.tenant)
}

/// Makes the default tenant where it is missing.
pub fn ensure_default_tenant(state: &NodeState) -> Result<(), StateError> {
    if state.applied().tenant(DEFAULT_TENANT).is_some() {
        return Ok(());
    }
    let record = TenantRecord {
        id: DEFAULT_TENANT,
        name: "default".to_owned(),
        salt: random::bytes(),
    };
    state.commit(&ClusterCommand::AddTenant(record))
}

/// Makes the first key of a cluster that has none; its text is shown once, now.
pub fn ensure_first_key(state: &NodeState) -> Result<Option<String>, StateError> {
    if state.applied().keys().next().is_some() {
        return Ok(None);
    }
    let key = NewKey::draw(DEFAULT_TENANT);
    state.commit(&ClusterCommand::AddKey(key.record))?;
    Ok(Some(key.text))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key() -> (ClusterState, String) {
        let key = NewKey::draw(TenantId(4));
        let mut state = ClusterState::default();
        let tenant = TenantRecord {
            id: TenantId(4),
            name: "a".to_owned(),
            salt: [1; 32],
        };
        state.apply(&ClusterCommand::AddTenant(tenant)).unwrap();
        state.apply(&ClusterCommand::AddKey(key.record)).unwrap();
        (state, key.text)
    }

    #[test]
    fn a_key_opens_its_tenant_until_it_is_revoked() {
        let (mut state, key) = with_key();
        assert_eq!(tenant_of(&key, &state), Some(TenantId(4)));
        let key_id = key.split('_').nth(1).unwrap().to_owned();
        state.apply(&ClusterCommand::RevokeKey { key_id }).unwrap();
        assert_eq!(tenant_of(&key, &state), None);
    }

    #[test]
    fn a_wrong_secret_or_shape_opens_nothing() {
        let (state, key) = with_key();
        let mut wrong = key.clone();
        let last = if wrong.pop() == Some('0') { '1' } else { '0' };
        wrong.push(last);
        for text in [wrong.as_str(), "", "ck_", "ck__", key.trim_start_matches("ck_")] {
            assert_eq!(tenant_of(text, &state), None, "{text}");
        }
    }

    #[test]
    fn two_keys_share_nothing() {
        let (one, other) = (NewKey::draw(TenantId(1)), NewKey::draw(TenantId(1)));
        assert_ne!(one.text, other.text);
        assert_ne!(one.record.secret_hash, other.record.secret_hash);
    }
}
