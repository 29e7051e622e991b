//! What may leave the store: what was never finished or whose model is gone, and beyond a budget what was used longest ago.

use super::error::StoreError;
use super::inventory::{FileKind, HeldFile, HeldModel, Inventory};
use std::fs;
use std::io;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    pub file: HeldFile,
    pub reason: Reason,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Packed weights whose writer was killed, or a partial that nobody goes on with.
    Unfinished,
    /// Packed weights, or digests of chunks, whose model is gone.
    Orphaned,
    /// What is left is more than the budget, and this was used longest ago.
    OverBudget,
}

/// What became of a collection.
#[derive(Default, Debug)]
pub struct Collected {
    pub removed: Vec<Removal>,
    /// They are still there.
    pub failed: Vec<StoreError>,
    /// Of all that is left.
    pub bytes_left: u64,
}

impl Reason {
    pub const fn words(self) -> &'static str {
        match self {
            Reason::Unfinished => "never finished",
            Reason::Orphaned => "its model is gone",
            Reason::OverBudget => "over budget, and used longest ago",
        }
    }
}

/// Which files go so that at most `bytes_max` are left, as far as models that are in use allow. Those used longest ago go
/// first, of each model its packed weights before its file.
pub fn removals(inventory: &Inventory, bytes_max: Option<u64>) -> Vec<Removal> {
    let (orphaned, mut kept): (Vec<&HeldModel>, Vec<&HeldModel>) = inventory
        .models
        .iter()
        .partition(|model| !model.has_file && !model.in_use);
    let unfinished = inventory.unfinished.iter().cloned().map(|file| Removal {
        file,
        reason: Reason::Unfinished,
    });
    let mut removals: Vec<Removal> = unfinished
        .chain(
            orphaned
                .into_iter()
                .flat_map(|model| all_of(model, Reason::Orphaned)),
        )
        .collect();
    let mut bytes: u64 = kept.iter().map(|model| model.bytes()).sum();
    kept.retain(|model| !model.in_use);
    kept.sort_by_key(|model| model.last_used);
    for removal in kept
        .into_iter()
        .flat_map(|model| all_of(model, Reason::OverBudget))
    {
        if bytes_max.is_none_or(|bytes_max| bytes <= bytes_max) {
            break;
        }
        bytes -= removal.file.bytes;
        removals.push(removal);
    }
    removals
}

fn all_of(model: &HeldModel, reason: Reason) -> impl Iterator<Item = Removal> {
    let files = model.files.iter().cloned();
    files.map(move |file| Removal { file, reason })
}

/// Whoever has a file mapped keeps what it has. A file that is gone already counts as removed.
pub fn remove(inventory: &Inventory, removals: Vec<Removal>) -> Collected {
    let mut collected = Collected {
        bytes_left: inventory.bytes(),
        ..Collected::default()
    };
    for removal in removals {
        match remove_one(&removal.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                collected.failed.push(StoreError::io(&removal.file.path)(error));
            }
            Ok(()) | Err(_) => {
                collected.bytes_left -= removal.file.bytes;
                collected.removed.push(removal);
            }
        }
    }
    collected
}

fn remove_one(file: &HeldFile) -> io::Result<()> {
    match file.kind {
        FileKind::Partial => fs::remove_dir_all(&file.path),
        FileKind::Packed | FileKind::Manifest | FileKind::Model => fs::remove_file(&file.path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn model(name: &str, used_secs: u64, packed: u64, bytes: u64) -> HeldModel {
        let file = |kind, bytes| HeldFile {
            path: format!("{name}-{kind:?}").into(),
            kind,
            bytes,
        };
        HeldModel {
            sha256: name.to_owned(),
            specs: Vec::new(),
            files: vec![file(FileKind::Packed, packed), file(FileKind::Model, bytes)],
            last_used: SystemTime::UNIX_EPOCH + Duration::from_secs(used_secs),
            in_use: false,
            has_file: true,
        }
    }

    fn inventory(models: &[HeldModel]) -> Inventory {
        Inventory {
            models: models.to_vec(),
            unfinished: Vec::new(),
        }
    }

    fn names(removals: &[Removal]) -> Vec<String> {
        let paths = removals.iter().map(|removal| &removal.file.path);
        paths.map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn without_a_budget_only_orphans_go() {
        let mut gone = model("gone", 9, 5, 0);
        gone.files.pop();
        gone.has_file = false;
        let mut held = inventory(&[model("old", 1, 5, 5), gone]);
        held.unfinished = model("killed", 1, 5, 5).files[..1].to_vec();
        let removed = removals(&held, None);
        assert_eq!(names(&removed), ["killed-Packed", "gone-Packed"]);
        let reasons: Vec<Reason> = removed.iter().map(|removal| removal.reason).collect();
        assert_eq!(reasons, [Reason::Unfinished, Reason::Orphaned]);
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_no_more_than_needed() {
        let models = [
            model("new", 3, 5, 5),
            model("old", 1, 5, 5),
            model("middle", 2, 5, 5),
        ];
        let removed = |bytes_max| names(&removals(&inventory(&models), Some(bytes_max)));
        assert!(removed(30).is_empty());
        assert_eq!(removed(29), ["old-Packed"]);
        assert_eq!(removed(18), ["old-Packed", "old-Model", "middle-Packed"]);
        assert_eq!(removed(0).len(), 6);
    }

    #[test]
    fn what_is_in_use_stays_and_counts() {
        let mut served = model("served", 1, 5, 5);
        served.in_use = true;
        let mut orphan = model("orphan", 1, 5, 0);
        (orphan.in_use, orphan.has_file) = (true, false);
        let models = [served, orphan, model("new", 3, 2, 2)];
        assert_eq!(
            names(&removals(&inventory(&models), Some(15))),
            ["new-Packed", "new-Model"]
        );
        assert!(removals(&inventory(&models[..2]), Some(0)).is_empty());
    }
}
