//! Paths in words.

use std::path::{self, Path, PathBuf};

/// Where a file was looked for: what is relative depends on where the command was started.
pub fn in_full(path: &Path) -> PathBuf {
    path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
