//! The log of nodes that knew no others: `log` in the data folder, one frame for each command.
//!
//! A node that finds one when it founds its cluster takes tenants and keys over, so that keys go on to open what they
//! opened. The types are as they were then and never change; replicas and models are named anew at every start anyway.

use proto::TenantId;
use proto::cluster::KeyRecord;
use proto::wire::{HEADER_BYTES, Header, Kind, WireError};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
enum OldCommand {
    AddModel(OldModel),
    RemoveModel { name: String },
    AddTenant(OldTenant),
    AddKey(OldKey),
    RevokeKey { key_id: String },
    RemoveTenant { id: TenantId },
    NameKey { key_id: String, name: String },
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
struct OldModel {
    name: String,
    spec: String,
    digest: [u8; 32],
    bytes: u64,
    added_at_secs: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
struct OldTenant {
    id: TenantId,
    name: String,
    salt: [u8; 32],
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
struct OldKey {
    key_id: String,
    secret_hash: [u8; 32],
    tenant: TenantId,
    created_at_secs: u64,
}

#[derive(thiserror::Error, Debug)]
pub enum LegacyError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "the log of an earlier version, {path}, is damaged at byte {offset} ({error}): restore it from a copy, or move it \
         away to begin anew (API keys will then be new)"
    )]
    Damaged {
        path: PathBuf,
        offset: usize,
        error: WireError,
    },
}

/// Tenants but the default one, by name with their salts, and keys by the name of their tenant; `None`: the default one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Legacy {
    pub tenants: Vec<(String, [u8; 32])>,
    pub keys: Vec<(Option<String>, KeyRecord)>,
}

/// `None`: there is no such log.
pub fn read(path: &Path) -> Result<Option<Legacy>, LegacyError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(LegacyError::Io {
                path: path.to_owned(),
                error,
            });
        }
    };
    let commands = commands(&bytes).map_err(|(offset, error)| LegacyError::Damaged {
        path: path.to_owned(),
        offset,
        error,
    })?;
    Ok(Some(sum(commands)))
}

/// A last entry that was cut short was never acknowledged. An error says at which byte.
fn commands(bytes: &[u8]) -> Result<Vec<OldCommand>, (usize, WireError)> {
    let (mut commands, mut rest) = (Vec::new(), bytes);
    loop {
        let offset = bytes.len() - rest.len();
        let is_empty = rest.iter().all(|byte| *byte == 0);
        let Some((header_bytes, payload)) = rest.split_first_chunk::<HEADER_BYTES>().filter(|_| !is_empty)
        else {
            return Ok(commands);
        };
        let header = Header::parse(header_bytes, Kind::LogEntry).map_err(|error| (offset, error))?;
        let Some((payload, after)) = payload.split_at_checked(header.length) else {
            return Ok(commands);
        };
        commands.push(
            header
                .open(header_bytes, payload)
                .map_err(|error| (offset, error))?,
        );
        rest = after;
    }
}

fn sum(commands: Vec<OldCommand>) -> Legacy {
    const DEFAULT: TenantId = TenantId(1);
    let (mut tenants, mut keys) = (BTreeMap::new(), BTreeMap::new());
    for command in commands {
        match command {
            OldCommand::AddModel(_) | OldCommand::RemoveModel { .. } => {}
            OldCommand::AddTenant(tenant) => {
                tenants.insert(tenant.id, (tenant.name, tenant.salt));
            }
            OldCommand::RemoveTenant { id } => {
                tenants.remove(&id);
            }
            OldCommand::AddKey(key) => {
                keys.insert(key.key_id.clone(), (key, None));
            }
            OldCommand::NameKey { key_id, name } => {
                if let Some((_, named)) = keys.get_mut(&key_id) {
                    *named = Some(name);
                }
            }
            OldCommand::RevokeKey { key_id } => {
                keys.remove(&key_id);
            }
        }
    }
    let of_key = |(key, name): (OldKey, Option<String>)| {
        let tenant = tenants.get(&key.tenant).filter(|_| key.tenant != DEFAULT);
        let record = KeyRecord {
            key_id: key.key_id,
            secret_hash: key.secret_hash,
            tenant: DEFAULT,
            created_at_secs: key.created_at_secs,
            name,
        };
        (tenant.map(|(name, _)| name.clone()), record)
    };
    Legacy {
        keys: keys.into_values().map(of_key).collect(),
        tenants: tenants
            .iter()
            .filter(|(id, _)| **id != DEFAULT)
            .map(|(_, tenant)| tenant.clone())
            .collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire_types::check::Check;
    use proto::wire;

    pub fn each(check: &mut impl Check) {
        let model = OldModel {
            name: "m".to_owned(),
            spec: "s".to_owned(),
            digest: [1; 32],
            bytes: 2,
            added_at_secs: 3,
        };
        let commands = [
            ("old_add_model", OldCommand::AddModel(model)),
            (
                "old_remove_model",
                OldCommand::RemoveModel { name: "m".to_owned() },
            ),
            ("old_add_tenant", tenant(3, "a")),
            ("old_add_key", key("k1", 1)),
            (
                "old_revoke_key",
                OldCommand::RevokeKey {
                    key_id: "k1".to_owned(),
                },
            ),
            ("old_remove_tenant", OldCommand::RemoveTenant { id: TenantId(3) }),
            ("old_name_key", name("k1", "laptop")),
        ];
        for (name, command) in commands {
            check.check(name, Kind::LogEntry, command);
        }
    }

    fn name(key_id: &str, name: &str) -> OldCommand {
        OldCommand::NameKey {
            key_id: key_id.to_owned(),
            name: name.to_owned(),
        }
    }

    fn key(key_id: &str, tenant: u32) -> OldCommand {
        OldCommand::AddKey(OldKey {
            key_id: key_id.to_owned(),
            secret_hash: [5; 32],
            tenant: TenantId(tenant),
            created_at_secs: 9,
        })
    }

    fn tenant(id: u32, name: &str) -> OldCommand {
        OldCommand::AddTenant(OldTenant {
            id: TenantId(id),
            name: name.to_owned(),
            salt: [7; 32],
        })
    }

    fn written(commands: &[OldCommand]) -> Vec<u8> {
        let frames = commands
            .iter()
            .map(|command| wire::frame(Kind::LogEntry, 0, command));
        frames.collect::<Vec<_>>().concat()
    }

    /// As the last version that wrote it did: a tenant, a key, its name.
    const GOLDEN: [&str; 3] = [
        "434c5354010003000000000000000000480000008733449c020000000300000061ffffffffffffff0707070707070707070707070707070707070707070707070707070707070707000000000000000000000000000000000000000000000000",
        "434c5354010003000000000000000000480000008d5ac2da03000000000000006b31ffffffffffff0505050505050505050505050505050505050505050505050505050505050505010000000000000009000000000000000000000000000000",
        "434c535401000300000000000000000048000000a6e6fd24060000006b31ffffffffffff6c6170746f70ffff00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    ];

    #[test]
    fn golden_bytes() {
        let commands_then = [tenant(3, "a"), key("k1", 1), name("k1", "laptop")];
        for (golden, command) in GOLDEN.into_iter().zip(commands_then) {
            let bytes = crate::hex::decode_all(golden).unwrap();
            assert_eq!(commands(&bytes).unwrap(), std::slice::from_ref(&command));
            assert_eq!(written(&[command]), bytes);
        }
    }

    #[test]
    fn what_was_there_at_the_end_is_taken_over() {
        let bytes = written(&[
            tenant(1, "default"),
            tenant(2, "a"),
            tenant(3, "gone"),
            OldCommand::RemoveTenant { id: TenantId(3) },
            key("k1", 1),
            key("k2", 2),
            key("k3", 1),
            name("k2", "laptop"),
            OldCommand::RevokeKey {
                key_id: "k3".to_owned(),
            },
        ]);
        let legacy = sum(commands(&bytes).unwrap());
        assert_eq!(legacy.tenants, [("a".to_owned(), [7; 32])]);
        let keys: Vec<(Option<&str>, &str, Option<&str>)> = legacy
            .keys
            .iter()
            .map(|(tenant, key)| (tenant.as_deref(), &*key.key_id, key.name.as_deref()))
            .collect();
        assert_eq!(keys, [(None, "k1", None), (Some("a"), "k2", Some("laptop"))]);
        let whole = commands(&bytes).unwrap().len();
        assert_eq!(
            commands(&bytes[..bytes.len() - 3]).unwrap().len(),
            whole - 1,
            "a torn end"
        );
        let mut bad = bytes.clone();
        bad[60] ^= 1;
        assert!(commands(&bad).is_err());
    }
}
