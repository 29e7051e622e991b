//! Tenants: who shares a queue weight and a prefix cache.

use super::keys::DEFAULT_TENANT;
use super::{NodeState, StateError};
use crate::random;
use coordinator::cluster_state::ClusterState;
use proto::TenantId;
use proto::cluster::{ClusterCommand, TenantRecord};

const NAME_CHARS_MAX: usize = 64;

#[derive(thiserror::Error, Debug)]
pub enum TenantError {
    #[error("there is no tenant named `{0}`: `cluster tenant list` shows those there are")]
    Unknown(String),
    #[error("`{0}` is no name for a tenant: 1 to 64 letters, digits, '-', '_' and '.'")]
    NameUnfit(String),
    #[error("the tenant `{0}` belongs to the cluster and cannot be removed")]
    Default(String),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Makes the default tenant where it is missing.
pub fn ensure_default(state: &NodeState) -> Result<(), StateError> {
    if state.applied().tenant(DEFAULT_TENANT).is_some() {
        return Ok(());
    }
    state.commit(&ClusterCommand::AddTenant(fresh(DEFAULT_TENANT, "default")))
}

pub fn add(state: &NodeState, name: &str) -> Result<TenantId, TenantError> {
    if !is_fit(name) {
        return Err(TenantError::NameUnfit(name.to_owned()));
    }
    let id = next_id(&state.applied());
    state.commit(&ClusterCommand::AddTenant(fresh(id, name)))?;
    Ok(id)
}

pub fn remove(state: &NodeState, name: &str) -> Result<(), TenantError> {
    let id = named(&state.applied(), name)?;
    if id == DEFAULT_TENANT {
        return Err(TenantError::Default(name.to_owned()));
    }
    state.commit(&ClusterCommand::RemoveTenant { id })?;
    Ok(())
}

pub fn named(state: &ClusterState, name: &str) -> Result<TenantId, TenantError> {
    let found = state.tenants().find(|tenant| tenant.name == name);
    found
        .map(|tenant| tenant.id)
        .ok_or_else(|| TenantError::Unknown(name.to_owned()))
}

fn fresh(id: TenantId, name: &str) -> TenantRecord {
    TenantRecord {
        id,
        name: name.to_owned(),
        salt: random::bytes(),
    }
}

fn next_id(state: &ClusterState) -> TenantId {
    let last = state.tenants().map(|tenant| tenant.id.0).max();
    TenantId(last.unwrap_or(DEFAULT_TENANT.0) + 1)
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
