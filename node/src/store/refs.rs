//! What the store remembers: which file a spec led to, and how large it was.
//!
//! One small JSON file for each spec under `refs/`, named by the digest of the spec's text and written atomically.

use super::error::StoreError;
use crate::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// For people who look into the store.
    pub spec: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    pub bytes: u64,
    /// Of a user's own file, in nanoseconds since 1970: the digest holds while length and time stay.
    pub modified_nanos: Option<u128>,
    /// Likewise, when the system last noted any change of it: also of a file that was put back with its old time.
    #[serde(default)]
    pub changed_nanos: Option<u128>,
}

impl Reference {
    /// Did a user's own file lead to the model, and is it still what it was, as far as its length tells?
    pub fn is_of_a_file_still_there(&self) -> bool {
        self.modified_nanos.is_some()
            && fs::metadata(&self.spec).is_ok_and(|data| data.is_file() && data.len() == self.bytes)
    }

    /// As [`Reference::is_of_a_file_still_there`], and nobody has written to it since.
    pub fn is_of_an_unchanged_file(&self) -> bool {
        self.is_of_a_file_still_there()
            && fs::metadata(&self.spec).is_ok_and(|data| modified_nanos(&data) == self.modified_nanos)
    }
}

/// Of a file's last change, in nanoseconds since 1970, where that is known.
pub fn modified_nanos(data: &fs::Metadata) -> Option<u128> {
    let since = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_nanos())
}

/// When the system last noted any change of a file, in nanoseconds since 1970.
pub fn changed_nanos(data: &fs::Metadata) -> Option<u128> {
    let secs = u128::try_from(data.ctime()).ok()?;
    let nanos = u128::try_from(data.ctime_nsec()).ok()?;
    Some(secs * 1_000_000_000 + nanos)
}

/// `None`: nothing remembered, or nothing readable, which is the same.
pub fn recall(store: &Path, spec: &str) -> Option<Reference> {
    let text = fs::read(path(store, spec)).ok()?;
    serde_json::from_slice::<Reference>(&text)
        .ok()
        .filter(|reference| reference.spec == spec)
}

/// All that are remembered, in the order of their specs.
pub fn all(store: &Path) -> Result<Vec<Reference>, StoreError> {
    let folder = store.join("refs");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(StoreError::io(&folder))? {
        let path = entry.map_err(StoreError::io(&folder))?.path();
        // What a crash left of a reference in the making has another ending.
        if path.extension().is_some_and(|end| end == "json") {
            found.extend(serde_json::from_slice::<Reference>(
                &fs::read(&path).unwrap_or_default(),
            ));
        }
    }
    found.sort_by(|one, other| one.spec.cmp(&other.spec));
    Ok(found)
}

pub fn remember(store: &Path, reference: &Reference) -> Result<(), StoreError> {
    let path = path(store, &reference.spec);
    let temporary = path.with_extension("new");
    let text = serde_json::to_vec_pretty(reference).expect("a reference is plain data");
    write_synced(&temporary, &text).map_err(StoreError::io(&temporary))?;
    fs::rename(&temporary, &path).map_err(StoreError::io(&path))
}

/// The spec leads nowhere from now on, until it is looked up again.
pub fn forget(store: &Path, spec: &str) -> Result<(), StoreError> {
    let path = path(store, spec);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
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
