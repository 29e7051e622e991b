//! Tenants: who shares a queue weight and a prefix cache.

use super::{NodeState, StateError};
use crate::random;
use coordinator::cluster_state::{ClusterState, DEFAULT_TENANT};
use proto::TenantId;
use proto::cluster::{ClusterCommand, NewTenant, TenantIs};

const NAME_CHARS_MAX: usize = 64;

#[derive(thiserror::Error, Debug)]
pub enum TenantError {
    #[error("there is no tenant named `{0}`: `cluster tenant list` shows those there are")]
    Unknown(String),
    #[error("`{0}` is no name for a tenant: 1 to 64 letters, digits, '-', '_' and '.'")]
    NameUnfit(String),
    #[error("the tenant `{0}` belongs to the cluster and cannot be removed")]
    Default(String),
    #[error(
        "the tenant `{name}` still has {keys} API key(s): revoke them first; `cluster key list` shows them"
    )]
    HasKeys { name: String, keys: usize },
    #[error(transparent)]
    State(#[from] StateError),
}

pub async fn add(state: &NodeState, name: &str) -> Result<(), TenantError> {
    if !is_fit(name) {
        return Err(TenantError::NameUnfit(name.to_owned()));
    }
    let tenant = NewTenant {
        name: name.to_owned(),
        salt: random::bytes(),
    };
    state.commit(ClusterCommand::AddTenant(Box::new(tenant))).await?;
    Ok(())
}

pub async fn remove(state: &NodeState, name: &str) -> Result<(), TenantError> {
    state.linearize().await?;
    let tenant = removable(&state.applied(), name)?;
    state
        .commit(ClusterCommand::RemoveTenant(Box::new(TenantIs { tenant })))
        .await?;
    Ok(())
}

/// Where the log is applied its keys are counted again.
fn removable(state: &ClusterState, name: &str) -> Result<TenantId, TenantError> {
    let tenant = named(state, name)?;
    if tenant == DEFAULT_TENANT {
        return Err(TenantError::Default(name.to_owned()));
    }
    match state.keys().filter(|key| key.tenant == tenant).count() {
        0 => Ok(tenant),
        keys => Err(TenantError::HasKeys {
            name: name.to_owned(),
            keys,
        }),
    }
}

pub fn named(state: &ClusterState, name: &str) -> Result<TenantId, TenantError> {
    let found = state.tenants().find(|tenant| tenant.name == name);
    found
        .map(|tenant| tenant.id)
        .ok_or_else(|| TenantError::Unknown(name.to_owned()))
}

fn is_fit(name: &str) -> bool {
    let is_fit = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && name.chars().all(is_fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for fit in ["a", "team-7", "Büro_1.test"] {
            assert!(is_fit(fit), "{fit}");
        }
        for unfit in ["", "two words", "a\n", "a/b", &"a".repeat(65)] {
            assert!(!is_fit(unfit), "{unfit}");
        }
    }
}
