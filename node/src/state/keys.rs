//! API keys: `ck_<key id>_<secret>`.
//!
//! The id is public and finds the record; the secret is 128 random bits, held only as a SHA-256 hash (of random bits a
//! fast hash is enough) and compared in constant time.

use super::tenants::{self, TenantError};
use super::{NodeState, StateError};
use crate::{clock, hex, random};
use coordinator::cluster_state::ClusterState;
/// The tenant of a fresh cluster's first key, and of everybody where there is no authentication.
pub use coordinator::cluster_state::DEFAULT_TENANT;
use proto::TenantId;
use proto::cluster::{ClusterCommand, KeyId, KeyRecord};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "ck_";
const NAME_CHARS_MAX: usize = 100;

/// A new key: the text is for its holder alone and is not kept.
pub struct NewKey {
    pub text: String,
    pub record: KeyRecord,
}

impl NewKey {
    pub fn draw(tenant: TenantId, name: Option<&str>) -> NewKey {
        let key_id = hex::encode(&random::bytes::<6>());
        let secret = hex::encode(&random::bytes::<16>());
        let text = format!("{PREFIX}{key_id}_{secret}");
        let record = KeyRecord {
            key_id,
            secret_hash: hash(&secret),
            tenant,
            created_at_secs: clock::unix_secs(),
            name: name.map(shown),
        };
        NewKey { text, record }
    }
}

/// Authenticates the commands of this host for as long as the process lives, as the default tenant. It is written
/// nowhere; who may open the control socket may have it.
pub struct LocalKey {
    secret_hash: [u8; 32],
    text: String,
}

impl LocalKey {
    pub fn draw() -> LocalKey {
        // No key id looks like this: those are hexadecimal.
        let text = format!("{PREFIX}local_{}", hex::encode(&random::bytes::<16>()));
        LocalKey {
            secret_hash: hash(&text),
            text,
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn opens(&self, key: &str) -> bool {
        self.secret_hash.ct_eq(&hash(key)).into()
    }
}

/// `None`: not a key, unknown or revoked.
pub fn tenant_of(key: &str, state: &ClusterState) -> Option<TenantId> {
    let (key_id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let record = state.key(key_id)?;
    let equal: bool = record.secret_hash.ct_eq(&hash(secret)).into();
    equal.then_some(record.tenant)
}

/// Makes the first key of a cluster that has none; its text is shown once, now.
pub async fn ensure_first_key(state: &NodeState) -> Result<Option<String>, StateError> {
    if state.applied().keys().next().is_some() {
        return Ok(None);
    }
    let key = NewKey::draw(DEFAULT_TENANT, None);
    state.commit(ClusterCommand::AddKey(Box::new(key.record))).await?;
    Ok(Some(key.text))
}

/// A new key of the tenant with this name; it counts when this returns.
pub async fn create(state: &NodeState, tenant: &str, name: Option<&str>) -> Result<NewKey, TenantError> {
    state.linearize().await?;
    let tenant = tenants::named(&state.applied(), tenant)?;
    let key = NewKey::draw(tenant, name);
    state
        .commit(ClusterCommand::AddKey(Box::new(key.record.clone())))
        .await?;
    Ok(key)
}

#[derive(thiserror::Error, Debug)]
pub enum KeyError {
    #[error(
        "this is not the secret of the key {0}, which is not revoked: give the key as it was printed, or its id alone \
         (`cluster key list`)"
    )]
    OtherSecret(String),
    #[error(transparent)]
    State(#[from] StateError),
}

/// `key` is its id or its whole text. From now on it opens nothing. Gives the id.
pub async fn revoke(state: &NodeState, key: &str) -> Result<String, KeyError> {
    state.linearize().await?;
    let key_id = to_revoke(key, &state.applied())?.to_owned();
    let revoked = KeyId {
        key_id: key_id.clone(),
    };
    state.commit(ClusterCommand::RevokeKey(Box::new(revoked))).await?;
    Ok(key_id)
}

/// Its id. A secret that comes with it must be its own: a slip in the id is not to cost somebody else's key. An id that
/// nobody has is refused where it is agreed on.
fn to_revoke<'a>(key: &'a str, state: &ClusterState) -> Result<&'a str, KeyError> {
    let (key_id, secret) = parts(key);
    let fits = match (secret, state.key(key_id)) {
        (Some(secret), Some(record)) => record.secret_hash.ct_eq(&hash(secret)).into(),
        (None, _) | (_, None) => true,
    };
    match fits {
        true => Ok(key_id),
        false => Err(KeyError::OtherSecret(key_id.to_owned())),
    }
}

/// A name is for people: one short line.
fn shown(name: &str) -> String {
    name.chars()
        .filter(|letter| !letter.is_control())
        .take(NAME_CHARS_MAX)
        .collect()
}

pub(super) fn id_of(key: &str) -> &str {
    parts(key).0
}

/// The id, and the secret where there is one.
fn parts(key: &str) -> (&str, Option<&str>) {
    let rest = key.strip_prefix(PREFIX).unwrap_or(key);
    rest.split_once('_')
        .map_or((rest, None), |(key_id, secret)| (key_id, Some(secret)))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::founded;
    use proto::cluster::Proposal;

    fn apply(state: &mut ClusterState, id: u128, command: ClusterCommand) {
        state.apply(1, &Proposal { id, command }).unwrap();
    }

    fn with_key() -> (ClusterState, String) {
        let mut state = founded();
        let key = NewKey::draw(DEFAULT_TENANT, Some("laptop"));
        apply(&mut state, 2, ClusterCommand::AddKey(Box::new(key.record)));
        (state, key.text)
    }

    #[test]
    fn a_key_opens_its_tenant_until_it_is_revoked() {
        let (mut state, key) = with_key();
        assert_eq!(tenant_of(&key, &state), Some(DEFAULT_TENANT));
        let key_id = key.split('_').nth(1).unwrap().to_owned();
        apply(
            &mut state,
            3,
            ClusterCommand::RevokeKey(Box::new(KeyId { key_id })),
        );
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
    fn a_key_is_named_by_its_id_or_its_text() {
        for text in ["ck_0a1b_77", "0a1b", "ck_0a1b"] {
            assert_eq!(id_of(text), "0a1b", "{text}");
        }
    }

    #[test]
    fn a_key_with_another_ones_secret_revokes_nothing() {
        let (state, key) = with_key();
        let (key_id, secret) = parts(&key);
        let id_and = |secret: &str| format!("{PREFIX}{key_id}_{secret}");
        for text in [key.as_str(), key_id, &id_and(secret.unwrap())] {
            assert_eq!(to_revoke(text, &state).unwrap(), key_id, "{text}");
        }
        for text in [id_and("77"), id_and(""), format!("{key_id}_77")] {
            let refused = to_revoke(&text, &state).unwrap_err().to_string();
            assert!(
                refused.contains(key_id) && refused.contains("not revoked"),
                "{refused}"
            );
        }
        assert_eq!(to_revoke("ck_unknown_77", &state).unwrap(), "unknown");
    }

    #[test]
    fn a_local_key_opens_to_itself_alone() {
        let (one, other) = (LocalKey::draw(), LocalKey::draw());
        assert!(one.opens(one.text()));
        assert!(!one.opens(other.text()));
        assert!(!one.opens(""));
        assert_eq!(tenant_of(one.text(), &ClusterState::default()), None);
    }

    #[test]
    fn two_keys_share_nothing() {
        let (one, other) = (NewKey::draw(TenantId(1), None), NewKey::draw(TenantId(1), None));
        assert_ne!(one.text, other.text);
        assert_ne!(one.record.secret_hash, other.record.secret_hash);
    }
}
