use crate::raft::disk::{Change, Disk, DiskError};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("cluster-raft-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    /// With a store of one vote.
    fn with_a_vote(name: &str) -> Folder {
        let folder = Folder::new(name);
        let mut disk = Disk::make(&folder.0).unwrap();
        disk.commit(&[Change::Vote(b"vote".to_vec())]).unwrap();
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_store_is_made_once_and_found_again() {
    let folder = Folder::with_a_vote("again");
    let disk = Disk::open(&folder.0).unwrap();
    assert_eq!(disk.vote(), Some(&b"vote"[..]));
    for file in ["raft/log.redb", "raft/witness", "raft.lock"] {
        let mode = std::fs::metadata(folder.0.join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_store_in_use_is_locked() {
    let folder = Folder::with_a_vote("locked");
    let disk = Disk::open(&folder.0).unwrap();
    let second = Disk::open(&folder.0).err();
    assert!(matches!(second, Some(DiskError::Locked { .. })), "{second:?}");
    drop(disk);
    Disk::open(&folder.0).unwrap();
}

#[test]
fn a_missing_or_empty_file_is_never_a_new_store() {
    for file in ["log.redb", "witness"] {
        let folder = Folder::with_a_vote(file);
        let path = folder.0.join("raft").join(file);
        std::fs::write(&path, []).unwrap();
        let empty = Disk::open(&folder.0).err();
        assert!(matches!(empty, Some(DiskError::Corrupt { .. })), "{empty:?}");
        std::fs::remove_file(&path).unwrap();
        let missing = Disk::open(&folder.0).err();
        assert!(matches!(missing, Some(DiskError::Corrupt { .. })), "{missing:?}");
        assert!(!path.exists());
    }
}

#[test]
fn a_missing_store_is_never_a_new_one() {
    let folder = Folder::with_a_vote("gone");
    std::fs::remove_dir_all(folder.0.join("raft")).unwrap();
    let gone = Disk::open(&folder.0).err();
    assert!(matches!(gone, Some(DiskError::Corrupt { .. })), "{gone:?}");
    assert!(!folder.0.join("raft").exists());
}

#[test]
fn none_is_made_where_there_is_one() {
    let folder = Folder::with_a_vote("twice");
    let second = Disk::make(&folder.0).err();
    assert!(matches!(second, Some(DiskError::Io { .. })), "{second:?}");
    assert_eq!(Disk::open(&folder.0).unwrap().vote(), Some(&b"vote"[..]));
}

#[test]
fn a_store_that_was_not_finished_is_made_anew() {
    let folder = Folder::new("unfinished");
    let unfinished = folder.0.join("raft.new");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join("log.redb"), b"half").unwrap();
    let disk = Disk::make(&folder.0).unwrap();
    assert_eq!(disk.vote(), None);
    assert!(!unfinished.exists());
}
