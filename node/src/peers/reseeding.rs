//! A recovery or a restoration that has begun: what a folder held is moved away before what it is to hold is there, and in
//! between it looks like that of a node that has never run.

use super::folder::{DataFolder, FolderError, remove, write_durably};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "reseeding";

/// Kept in the folder from before anything moves until all is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reseeding {
    /// What the folder held is in this folder of it, as far as it has been moved.
    Recovery { aside: String },
    /// Into a folder that held nothing.
    Restoration,
}

impl Reseeding {
    /// On the disk when this returns.
    pub fn begin(&self, folder: &DataFolder) -> Result<(), FolderError> {
        let text = match self {
            Reseeding::Recovery { aside } => format!("recovery {aside}\n"),
            Reseeding::Restoration => "restoration\n".to_owned(),
        };
        let path = file(folder.path());
        write_durably(&path, &text).map_err(|error| FolderError::Io { path, error })
    }

    /// One that has not come to its end. A file that says something else is an error: what belongs where is not known.
    pub fn of(data_dir: &Path) -> Result<Option<Reseeding>, FolderError> {
        let path = file(data_dir);
        match fs::read_to_string(&path) {
            Ok(text) => Reseeding::read(&text).map(Some).ok_or_else(|| FolderError::Io {
                path,
                error: io::Error::new(io::ErrorKind::InvalidData, "it is damaged"),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FolderError::Io { path, error }),
        }
    }

    fn read(text: &str) -> Option<Reseeding> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["recovery", aside] => Some(Reseeding::Recovery {
                aside: aside.to_owned(),
            }),
            ["restoration"] => Some(Reseeding::Restoration),
            _ => None,
        }
    }

    /// The folder is as it was before. Where this breaks off, it can be done again.
    pub fn undo(&self, folder: &DataFolder) -> Result<(), FolderError> {
        match self {
            Reseeding::Recovery { aside } => put_back(folder.path(), &folder.path().join(aside))?,
            Reseeding::Restoration => {
                for name in ["raft", "identity"] {
                    remove(&folder.path().join(name))?;
                }
            }
        }
        Reseeding::end(folder)
    }

    /// What is there counts from now on. On the disk when this returns: were it undone later, all since then would be lost.
    pub fn end(folder: &DataFolder) -> Result<(), FolderError> {
        remove(&file(folder.path()))?;
        let synced = File::open(folder.path()).and_then(|folder| folder.sync_all());
        synced.map_err(|error| FolderError::Io {
            path: folder.path().to_owned(),
            error,
        })?;
        folder.make_folders()
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// What has not been moved is where it was, and what has been made in place of the rest is nobody's yet.
fn put_back(folder: &Path, aside: &Path) -> Result<(), FolderError> {
    let io_error = |error| FolderError::Io {
        path: aside.to_owned(),
        error,
    };
    let moved = match fs::read_dir(aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        moved => moved.map_err(io_error)?,
    };
    for moved in moved {
        let moved = moved.map_err(io_error)?;
        let place = folder.join(moved.file_name());
        remove(&place)?;
        fs::rename(moved.path(), &place).map_err(|error| FolderError::Io { path: place, error })?;
    }
    fs::remove_dir(aside).map_err(io_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("cluster-reseeding-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        root
    }

    fn content(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    #[test]
    fn a_recovery_is_undone_wherever_it_broke_off() {
        // Neither of the two is moved yet, the first, both; and both with others in their place.
        for (moved, is_remade) in [(0, false), (1, false), (2, false), (2, true)] {
            let path = &root("recovery");
            let folder = DataFolder::lock(path).unwrap();
            let names = ["raft", "identity"];
            for name in names {
                fs::create_dir_all(path.join(name)).unwrap();
                fs::write(path.join(name).join("it"), "old").unwrap();
            }
            let aside = folder.free_aside(7);
            let recovery = Reseeding::Recovery { aside: aside.clone() };
            recovery.begin(&folder).unwrap();
            for name in &names[..moved] {
                fs::create_dir_all(path.join(&aside)).unwrap();
                fs::rename(path.join(name), path.join(&aside).join(name)).unwrap();
                if is_remade {
                    fs::create_dir_all(path.join(name)).unwrap();
                    fs::write(path.join(name).join("it"), "new").unwrap();
                }
            }
            assert_eq!(Reseeding::of(path).unwrap(), Some(recovery.clone()));
            recovery.undo(&folder).unwrap();
            assert_eq!(Reseeding::of(path).unwrap(), None);
            for name in names {
                assert_eq!(
                    content(&path.join(name).join("it")).as_deref(),
                    Some("old"),
                    "{moved}"
                );
            }
            assert!(!path.join(&aside).exists());
            fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn a_restoration_is_undone_and_what_is_not_understood_is_not_guessed() {
        let root = root("restoration");
        let folder = DataFolder::lock(&root).unwrap();
        Reseeding::Restoration.begin(&folder).unwrap();
        fs::create_dir_all(root.join("raft")).unwrap();
        let begun = Reseeding::of(&root).unwrap().unwrap();
        assert_eq!(begun, Reseeding::Restoration);
        begun.undo(&folder).unwrap();
        assert!(!root.join("raft").exists());
        assert_eq!(Reseeding::of(&root).unwrap(), None);
        fs::write(root.join(FILE), "recovery of something").unwrap();
        let error = Reseeding::of(&root).unwrap_err().to_string();
        assert!(
            error.contains("reseeding") && error.contains("damaged"),
            "{error}"
        );
        fs::remove_dir_all(root).unwrap();
    }
}
