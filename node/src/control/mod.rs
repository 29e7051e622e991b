//! Client commands on this host: a Unix socket in the data folder that only the node's user can open.
//!
//! One request, one answer, one line of JSON each. Who may open the socket may ask for anything.

pub mod client;
mod drains;
mod nodes;
mod placements;
pub mod report;
pub mod server;

use crate::placement::deploy::DeployWish;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum ControlRequest {
    /// Answered with a [`report::StatusReport`].
    Status,
    /// Answered with a [`report::Access`].
    OpenAccess,
    /// Answered with a [`report::CreatedKey`].
    CreateKey { tenant: String, name: Option<String> },
    /// Answered with [`report::Keys`].
    ListKeys,
    /// `key` is an id or a whole key. Answered with the id.
    RevokeKey { key: String },
    /// Answered with nothing.
    AddTenant { name: String },
    /// Answered with [`report::Tenants`].
    ListTenants,
    /// Answered with nothing.
    RemoveTenant { name: String },
    /// Answered with a [`report::CreatedToken`].
    CreateToken { role: String, ttl_secs: u64 },
    /// Answered with [`report::Nodes`].
    ListNodes,
    /// Answered with nothing.
    RemoveNode { node: u64 },
    /// Answered with a [`report::DrainReport`].
    DrainNode { node: u64 },
    /// Answered with nothing.
    ResumeNode { node: u64 },
    /// Answered with nothing.
    RevokeToken { id: String },
    /// What would be placed where. Answered with a [`report::DeployReport`]; to be asked again while it is read.
    PlanModel(DeployWish),
    /// As `PlanModel`, and does it.
    DeployModel(DeployWish),
    /// Answered with nothing.
    UndeployModel { model: String },
    /// Answered with nothing.
    BeginRotation,
    /// Answered with nothing.
    FinishRotation,
    /// Answered with nothing.
    AbandonRotation,
    /// Answered with a [`report::Backup`].
    Backup,
}

/// The answer, or in the node's words why there is none.
pub type ControlAnswer<T> = Result<T, String>;

pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}
