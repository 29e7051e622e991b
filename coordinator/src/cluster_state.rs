//! What the committed log means.
//!
//! Whoever logs a command asks [`ClusterState::accepts`] first, logs, then applies. Every node applies the same log and
//! arrives at the same state, so a command that is invalid where it stands in the log is rejected in the same way
//! everywhere and changes nothing.

use proto::TenantId;
use proto::cluster::{ClusterCommand, KeyRecord, ModelRecord, TenantRecord};
use std::collections::BTreeMap;

/// Models, tenants and keys as of one place in the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterState {
    version: u64,
    models: BTreeMap<String, ModelRecord>,
    tenants: BTreeMap<TenantId, TenantRecord>,
    keys: BTreeMap<String, KeyRecord>,
    /// By key id; most keys have none.
    key_names: BTreeMap<String, String>,
}

/// Why a command changes nothing.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Rejected {
    #[error("a model named `{name}` exists already; choose another name or remove that one first")]
    ModelExists { name: String },
    #[error("there is no model named `{name}`")]
    ModelUnknown { name: String },
    #[error("a tenant named `{name}` or with id {id} exists already; choose another name")]
    TenantExists { id: TenantId, name: String },
    #[error("there is no tenant {id}; add the tenant before its keys")]
    TenantUnknown { id: TenantId },
    #[error("tenant {id} still has {keys} API key(s); revoke them first")]
    TenantHasKeys { id: TenantId, keys: usize },
    #[error("a key with id `{key_id}` exists already; draw another one")]
    KeyExists { key_id: String },
    #[error("there is no key with id `{key_id}`; it may have been revoked already")]
    KeyUnknown { key_id: String },
}

impl ClusterState {
    /// The next command of the log. Every command counts into [`ClusterState::version`], also a rejected one.
    pub fn apply(&mut self, command: &ClusterCommand) -> Result<(), Rejected> {
        self.version += 1;
        self.accepts(command)?;
        match command {
            ClusterCommand::AddModel(model) => {
                self.models.insert(model.name.clone(), model.clone());
            }
            ClusterCommand::RemoveModel { name } => {
                self.models.remove(name);
            }
            ClusterCommand::AddTenant(tenant) => {
                self.tenants.insert(tenant.id, tenant.clone());
            }
            ClusterCommand::AddKey(key) => {
                self.keys.insert(key.key_id.clone(), key.clone());
            }
            ClusterCommand::RevokeKey { key_id } => {
                self.keys.remove(key_id);
                self.key_names.remove(key_id);
            }
            ClusterCommand::RemoveTenant { id } => {
                self.tenants.remove(id);
            }
            ClusterCommand::NameKey { key_id, name } => {
                self.key_names.insert(key_id.clone(), name.clone());
            }
        }
        Ok(())
    }

    /// Would [`ClusterState::apply`] take it now? Holds until the next `apply`.
    pub fn accepts(&self, command: &ClusterCommand) -> Result<(), Rejected> {
        match command {
            ClusterCommand::AddModel(model) => self.accepts_model(model),
            ClusterCommand::RemoveModel { name } => match self.models.contains_key(name) {
                true => Ok(()),
                false => Err(Rejected::ModelUnknown { name: name.clone() }),
            },
            ClusterCommand::AddTenant(tenant) => self.accepts_tenant(tenant),
            ClusterCommand::AddKey(key) => self.accepts_key(key),
            ClusterCommand::RevokeKey { key_id } | ClusterCommand::NameKey { key_id, .. } => {
                self.knows_key(key_id)
            }
            ClusterCommand::RemoveTenant { id } => self.can_do_without(*id),
        }
    }

    /// How many commands have been applied.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// By name.
    pub fn models(&self) -> impl Iterator<Item = &ModelRecord> {
        self.models.values()
    }

    pub fn model(&self, name: &str) -> Option<&ModelRecord> {
        self.models.get(name)
    }

    /// By id.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantRecord> {
        self.tenants.values()
    }

    pub fn tenant(&self, id: TenantId) -> Option<&TenantRecord> {
        self.tenants.get(&id)
    }

    /// By key id.
    pub fn keys(&self) -> impl Iterator<Item = &KeyRecord> {
        self.keys.values()
    }

    /// `None`: never existed, or revoked.
    pub fn key(&self, key_id: &str) -> Option<&KeyRecord> {
        self.keys.get(key_id)
    }

    /// What people call it; `None`: it was given no name.
    pub fn key_name(&self, key_id: &str) -> Option<&str> {
        self.key_names.get(key_id).map(String::as_str)
    }

    fn accepts_model(&self, model: &ModelRecord) -> Result<(), Rejected> {
        match self.models.contains_key(&model.name) {
            true => Err(Rejected::ModelExists {
                name: model.name.clone(),
            }),
            false => Ok(()),
        }
    }

    fn accepts_tenant(&self, tenant: &TenantRecord) -> Result<(), Rejected> {
        let is_taken = self
            .tenants
            .values()
            .any(|known| known.id == tenant.id || known.name == tenant.name);
        match is_taken {
            true => Err(Rejected::TenantExists {
                id: tenant.id,
                name: tenant.name.clone(),
            }),
            false => Ok(()),
        }
    }

    fn accepts_key(&self, key: &KeyRecord) -> Result<(), Rejected> {
        if !self.tenants.contains_key(&key.tenant) {
            Err(Rejected::TenantUnknown { id: key.tenant })
        } else if self.keys.contains_key(&key.key_id) {
            Err(Rejected::KeyExists {
                key_id: key.key_id.clone(),
            })
        } else {
            Ok(())
        }
    }

    fn knows_key(&self, key_id: &str) -> Result<(), Rejected> {
        match self.keys.contains_key(key_id) {
            true => Ok(()),
            false => Err(Rejected::KeyUnknown {
                key_id: key_id.to_owned(),
            }),
        }
    }

    fn can_do_without(&self, id: TenantId) -> Result<(), Rejected> {
        let keys = self.keys.values().filter(|key| key.tenant == id).count();
        match (self.tenants.contains_key(&id), keys) {
            (false, _) => Err(Rejected::TenantUnknown { id }),
            (true, 0) => Ok(()),
            (true, keys) => Err(Rejected::TenantHasKeys { id, keys }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: u32, name: &str) -> ClusterCommand {
        ClusterCommand::AddTenant(TenantRecord {
            id: TenantId(id),
            name: name.into(),
            salt: [7; 32],
        })
    }

    fn key(key_id: &str, tenant: u32) -> ClusterCommand {
        ClusterCommand::AddKey(KeyRecord {
            key_id: key_id.into(),
            secret_hash: [1; 32],
            tenant: TenantId(tenant),
            created_at_secs: 0,
        })
    }

    fn model(name: &str, digest: u8) -> ClusterCommand {
        ClusterCommand::AddModel(ModelRecord {
            name: name.into(),
            spec: "path".into(),
            digest: [digest; 32],
            bytes: 1,
            added_at_secs: 0,
        })
    }

    fn state(commands: &[ClusterCommand]) -> ClusterState {
        let mut state = ClusterState::default();
        commands.iter().for_each(|command| state.apply(command).unwrap());
        state
    }

    #[test]
    fn what_was_added_is_found_until_it_is_removed() {
        let mut state = state(&[tenant(0, "default"), key("k1", 0), model("m", 1)]);
        assert_eq!(state.key("k1").map(|key| key.tenant), Some(TenantId(0)));
        state
            .apply(&ClusterCommand::RevokeKey { key_id: "k1".into() })
            .unwrap();
        state
            .apply(&ClusterCommand::RemoveModel { name: "m".into() })
            .unwrap();
        assert_eq!(
            (state.key("k1"), state.model("m"), state.version()),
            (None, None, 5)
        );
    }

    #[test]
    fn a_tenant_goes_when_its_last_key_has_gone() {
        let mut state = state(&[tenant(3, "a"), key("k1", 3)]);
        let remove = ClusterCommand::RemoveTenant { id: TenantId(3) };
        let has_keys = Rejected::TenantHasKeys {
            id: TenantId(3),
            keys: 1,
        };
        assert_eq!(state.apply(&remove), Err(has_keys));
        let revoke = ClusterCommand::RevokeKey { key_id: "k1".into() };
        state.apply(&revoke).unwrap();
        state.apply(&remove).unwrap();
        assert_eq!(state.tenant(TenantId(3)), None);
        assert_eq!(
            state.apply(&remove),
            Err(Rejected::TenantUnknown { id: TenantId(3) })
        );
    }

    #[test]
    fn a_name_lives_as_long_as_its_key() {
        let mut state = state(&[tenant(0, "default"), key("k1", 0)]);
        let name = |key_id: &str| ClusterCommand::NameKey {
            key_id: key_id.into(),
            name: "laptop".into(),
        };
        state.apply(&name("k1")).unwrap();
        assert_eq!(state.key_name("k1"), Some("laptop"));
        let revoke = ClusterCommand::RevokeKey { key_id: "k1".into() };
        state.apply(&revoke).unwrap();
        assert_eq!(state.key_name("k1"), None);
        assert!(state.apply(&name("k1")).is_err());
    }

    #[test]
    fn an_invalid_command_is_rejected_and_changes_nothing_but_the_version() {
        let before = state(&[tenant(0, "default"), key("k1", 0), model("m", 1)]);
        let cases = [
            (model("m", 2), Rejected::ModelExists { name: "m".into() }),
            (
                ClusterCommand::RemoveModel { name: "x".into() },
                Rejected::ModelUnknown { name: "x".into() },
            ),
            (
                tenant(1, "default"),
                Rejected::TenantExists {
                    id: TenantId(1),
                    name: "default".into(),
                },
            ),
            (
                tenant(0, "other"),
                Rejected::TenantExists {
                    id: TenantId(0),
                    name: "other".into(),
                },
            ),
            (key("k2", 9), Rejected::TenantUnknown { id: TenantId(9) }),
            (key("k1", 0), Rejected::KeyExists { key_id: "k1".into() }),
            (
                ClusterCommand::RevokeKey { key_id: "x".into() },
                Rejected::KeyUnknown { key_id: "x".into() },
            ),
        ];
        for (command, rejected) in cases {
            let mut after = before.clone();
            assert_eq!(after.apply(&command), Err(rejected));
            after.version -= 1;
            assert_eq!(after, before);
        }
    }
}
