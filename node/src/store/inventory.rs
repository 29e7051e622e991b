//! What the store holds, model by model.

use super::catalogue;
use super::error::StoreError;
use super::partial;
use super::refs::{self, Reference};
use super::uses;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A partial that nobody has gone on with for so long is not waited for any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// In which the system counts what a file takes.
const BLOCK_BYTES: u64 = 512;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inventory {
    /// In the order of their digests.
    pub models: Vec<HeldModel>,
    /// Packed weights that nobody finished, since somebody was killed while writing them; partials that nobody goes on with, or
    /// whose model is here.
    pub unfinished: Vec<HeldFile>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldModel {
    /// Of the model's file, in hexadecimal.
    pub sha256: String,
    /// What leads to it, in order.
    pub specs: Vec<String>,
    /// Packed weights first: they can be had again without a download.
    pub files: Vec<HeldFile>,
    pub last_used: SystemTime,
    pub in_use: bool,
    /// Its file is in the store, where its user keeps it, or on its way.
    pub has_file: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldFile {
    pub path: PathBuf,
    pub kind: FileKind,
    pub bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    Packed,
    /// Digests of the model's chunks.
    Manifest,
    /// A folder, with what has come of the model's file.
    Partial,
    Model,
}

impl Inventory {
    pub fn bytes(&self) -> u64 {
        let models: u64 = self.models.iter().map(HeldModel::bytes).sum();
        models + self.unfinished.iter().map(|file| file.bytes).sum::<u64>()
    }
}

impl HeldModel {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub fn bytes_of(&self, kind: FileKind) -> u64 {
        let of_kind = self.files.iter().filter(|file| file.kind == kind);
        of_kind.map(|file| file.bytes).sum()
    }
}

/// To be called under the store's lock; shard hosts come and go in `packed/` without it.
pub fn take(store: &Path) -> Result<Inventory, StoreError> {
    let references = refs::all(store)?;
    let mut files: BTreeMap<String, Vec<HeldFile>> = BTreeMap::new();
    let mut unfinished = Vec::new();
    let folders = [
        ("packed", FileKind::Packed),
        ("chunks", FileKind::Manifest),
        ("partial", FileKind::Partial),
        ("blobs", FileKind::Model),
    ];
    for (folder, kind) in folders {
        for file in files_in(&store.join(folder), kind)? {
            match model_of(&file) {
                Some(sha256) if is_abandoned(store, &file, &sha256) => unfinished.push(file),
                Some(sha256) => files.entry(sha256).or_default().push(file),
                None if is_unfinished(&file) => unfinished.push(file),
                None => {}
            }
        }
    }
    let models = files
        .into_iter()
        .map(|(sha256, files)| model(store, sha256, files, &references));
    Ok(Inventory {
        models: models.collect(),
        unfinished,
    })
}

fn model(store: &Path, sha256: String, files: Vec<HeldFile>, references: &[Reference]) -> HeldModel {
    let leading: Vec<&Reference> = references.iter().filter(|known| known.sha256 == sha256).collect();
    let changed = files.iter().filter_map(|file| modified(&file.path)).max();
    let specs = catalogue::name_of(&sha256).map(str::to_owned).into_iter();
    HeldModel {
        has_file: files
            .iter()
            .any(|file| matches!(file.kind, FileKind::Model | FileKind::Partial))
            || leading.iter().any(|known| known.is_of_a_file_still_there()),
        last_used: uses::last(store, &sha256)
            .or(changed)
            .unwrap_or(SystemTime::UNIX_EPOCH),
        in_use: uses::goes_on(store, &sha256) || files.iter().any(is_being_fetched),
        specs: specs
            .chain(leading.into_iter().map(|known| known.spec.clone()))
            .collect(),
        files,
        sha256,
    }
}

/// In the order of their names; none where the folder is missing. What goes meanwhile is left out.
fn files_in(folder: &Path, kind: FileKind) -> Result<Vec<HeldFile>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io(folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(StoreError::io(folder))?.path();
        match fs::symlink_metadata(&path) {
            Ok(data) if data.is_file() && kind != FileKind::Partial => found.push(HeldFile {
                path,
                kind,
                bytes: data.len(),
            }),
            Ok(data) if data.is_dir() && kind == FileKind::Partial => found.push(HeldFile {
                bytes: taken_below(&path),
                path,
                kind,
            }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(&path)(error));
            }
            Ok(_) | Err(_) => {}
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Model files are named by a digest, packed weights by one and more. `None`: the name is no such one.
fn model_of(file: &HeldFile) -> Option<String> {
    const DIGITS: usize = 64;
    let name = file.path.file_name()?.to_str()?;
    let whole = match file.kind {
        FileKind::Model | FileKind::Manifest => name.len() == DIGITS,
        FileKind::Partial => file.path.file_stem()?.len() == DIGITS,
        FileKind::Packed => file.path.extension().is_none(),
    };
    let digest = name.get(..DIGITS).filter(|_| whole)?;
    let hexadecimal = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then(|| digest.to_owned())
}

/// Who writes packed weights holds a lock on them.
fn is_unfinished(file: &HeldFile) -> bool {
    file.kind == FileKind::Packed
        && file.path.extension().is_some_and(|end| end == "part")
        && File::open(&file.path)
            .is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Without the holes. What goes meanwhile takes nothing.
fn taken_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let taken = entries.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * BLOCK_BYTES));
    taken.sum()
}

fn is_being_fetched(file: &HeldFile) -> bool {
    file.kind == FileKind::Partial && partial::is_held(&file.path)
}

/// Of partials: nobody goes on with it, or the model is here.
fn is_abandoned(store: &Path, file: &HeldFile, sha256: &str) -> bool {
    let age = modified(&file.path.join("landed")).and_then(|at| at.elapsed().ok());
    let is_left = age.is_some_and(|age| age > ABANDONED_AFTER) || store.join("blobs").join(sha256).is_file();
    file.kind == FileKind::Partial && is_left && !partial::is_held(&file.path)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}
