use super::error::DiskError;
use super::fault::Fault;
use super::file::PlainFile;
use super::store::{Disk, Files};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const LOCK: &str = "raft.lock";
const STORE: &str = "raft";
const UNFINISHED: &str = "raft.new";
const LOG: &str = "log.redb";
const WITNESS: &str = "witness";

impl Disk {
    /// Makes an empty store in a data folder on which no node has run, and opens it. Where there is one, it fails and leaves it
    /// as it is.
    pub fn make(folder: &Path) -> Result<Disk, DiskError> {
        let place = place(folder);
        let lock = lock(folder, &place)?;
        create(folder, &place)?;
        open(folder, place, lock)
    }

    /// Opens the store in a node's data folder, and verifies everything that is there. One that is missing is damage: it never
    /// was empty.
    pub fn open(folder: &Path) -> Result<Disk, DiskError> {
        let place = place(folder);
        let lock = lock(folder, &place)?;
        open(folder, place, lock)
    }
}

fn place(folder: &Path) -> String {
    folder.join(STORE).display().to_string()
}

fn open(folder: &Path, place: String, lock: File) -> Result<Disk, DiskError> {
    let store = folder.join(STORE);
    let open = |name: &str| match PlainFile::open(&store.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Fault::corrupt(format!("{name} is missing")).at(&place))
        }
        opened => opened.map_err(|error| Fault::Io(error).at(&place)),
    };
    let (log, witness) = (open(LOG)?, open(WITNESS)?);
    Disk::open_files(Files::new(place, log, witness), Some(lock))
}

fn lock(folder: &Path, place: &str) -> Result<File, DiskError> {
    let options = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .clone();
    let file = options
        .open(folder.join(LOCK))
        .map_err(|error| Fault::of_write(error).at(place))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DiskError::Locked {
            place: place.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(Fault::Io(error).at(place)),
    }
}

/// A crash leaves no store or a whole one: it is made beside its place and renamed.
fn create(folder: &Path, place: &str) -> Result<(), DiskError> {
    let unfinished = folder.join(UNFINISHED);
    let fails = |error| Fault::of_write(error).at(place);
    match std::fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fails(error)),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&unfinished).map_err(fails)?;
    let log = PlainFile::create(&unfinished.join(LOG)).map_err(fails)?;
    let witness = PlainFile::create(&unfinished.join(WITNESS)).map_err(fails)?;
    Files::new(place.to_owned(), log, witness).create(crate::random::bytes())?;
    sync_folder(&unfinished).map_err(fails)?;
    std::fs::rename(&unfinished, folder.join(STORE)).map_err(fails)?;
    sync_folder(folder).map_err(fails)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
