//! What the store remembers: which file a spec led to, and how large it was.
//!
//! One small JSON file for each spec under `refs/`, named by the digest of the spec's text and written atomically.

use super::error::StoreError;
use crate::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// For people who look into the store.
    pub spec: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    pub bytes: u64,
    /// Of a user's own file, in nanoseconds since 1970: the digest holds while length and time stay.
    pub modified_nanos: Option<u128>,
}

/// `None`: nothing remembered, or nothing readable, which is the same.
pub fn recall(store: &Path, spec: &str) -> Option<Reference> {
    let text = fs::read(path(store, spec)).ok()?;
    serde_json::from_slice::<Reference>(&text)
        .ok()
        .filter(|reference| reference.spec == spec)
}

pub fn remember(store: &Path, reference: &Reference) -> Result<(), StoreError> {
    let path = path(store, &reference.spec);
    let temporary = path.with_extension("new");
    let text = serde_json::to_vec_pretty(reference).expect("a reference is plain data");
    write_synced(&temporary, &text).map_err(StoreError::io(&temporary))?;
    fs::rename(&temporary, &path).map_err(StoreError::io(&path))
}

fn write_synced(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn path(store: &Path, spec: &str) -> PathBuf {
    let name = hex::encode(&Sha256::digest(spec.as_bytes())[..16]);
    store.join("refs").join(name).with_extension("json")
}
