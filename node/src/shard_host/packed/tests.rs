use super::PackedStore;
use super::file::PackedFile;
use super::index::{PackedIndex, PackedMatrix};
use super::writer::PackedWriter;
use crate::wire_types::check::Check;
use proto::wire::Kind;
use shard::PackedCache;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder that goes away with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("cluster-packed-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("below").join("weights")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("below")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PACKING: u32 = 7;

pub fn each(check: &mut impl Check) {
    let matrix = PackedMatrix {
        name: "first".to_owned(),
        first_output: 1,
        end_output: 2,
        offset: 64,
        bytes: 3,
        checksum: 4,
    };
    let index = PackedIndex {
        packing: PACKING,
        matrices: vec![matrix],
    };
    check.check("packed_index", Kind::PackedIndex, index);
}

/// Two matrices, of which the second is cut into two.
fn write(path: &Path) {
    let mut writer = PackedWriter::create(path, PACKING).unwrap();
    writer.write("first", &(0..10), &[1; 100]).unwrap();
    writer.write("second", &(0..5), &[2; 64]).unwrap();
    writer.write("second", &(5..10), &[3; 65]).unwrap();
    writer.settle().unwrap();
}

fn open(path: &Path) -> PackedStore {
    PackedStore::open(path.to_owned(), PACKING)
}

#[test]
fn what_was_written_is_found_by_its_name_and_rows() {
    let folder = Folder::new("found");
    write(&folder.file());
    assert_eq!(folder.names(), ["weights"]);
    let file = PackedFile::open(&folder.file(), PACKING).unwrap().unwrap();
    let found = |name, outputs| file.find(name, &outputs).map(|packed| packed.to_vec());
    assert_eq!(found("first", 0..10), Some(vec![1; 100]));
    assert_eq!(found("second", 0..5), Some(vec![2; 64]));
    assert_eq!(found("second", 5..10), Some(vec![3; 65]));
    assert_eq!(found("second", 0..10), None);
    assert_eq!(found("third", 0..10), None);
    let packed = file.find("second", &(5..10)).unwrap();
    assert!(
        packed.as_ptr().addr().is_multiple_of(64),
        "vectors are loaded from it"
    );
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_and_the_file_made_anew() {
    let folder = Folder::new("flipped");
    let path = folder.file();
    write(&path);
    let good = fs::read(&path).unwrap();
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let mut store = open(&path);
        let all = [("first", 0..10), ("second", 0..5), ("second", 5..10)];
        let found = all.map(|(name, outputs)| store.find(name, &outputs).map(|packed| packed.to_vec()));
        let right = [Some(vec![1; 100]), Some(vec![2; 64]), Some(vec![3; 65])];
        let is_padding = (100..128).contains(&byte);
        assert_eq!(found == right, is_padding, "byte {byte}");
        assert!(
            found
                .iter()
                .zip(&right)
                .all(|(found, right)| found.is_none() || found == right)
        );
        drop(store);
        match open(&path) {
            // Gone, or of no use and about to be replaced.
            PackedStore::Writing { .. } => {}
            PackedStore::Reading { .. } => assert!(is_padding, "byte {byte}"),
            PackedStore::Off => panic!("byte {byte}"),
        }
    }
}

#[test]
fn a_file_cut_off_anywhere_is_of_no_use() {
    let folder = Folder::new("cut");
    let path = folder.file();
    write(&path);
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert!(PackedFile::open(&path, PACKING).is_err(), "{length} bytes");
    }
}

#[test]
fn another_form_of_packing_is_replaced() {
    let folder = Folder::new("form");
    write(&folder.file());
    let store = PackedStore::open(folder.file(), PACKING + 1);
    assert!(matches!(store, PackedStore::Writing { .. }));
}

#[test]
fn a_start_that_breaks_off_leaves_nothing_and_left_overs_are_overwritten() {
    let folder = Folder::new("broken");
    let mut store = open(&folder.file());
    store.keep("first", &(0..10), &[1; 100]);
    drop(store);
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    fs::write(folder.file().with_extension("part"), [9; 10_000]).unwrap();
    write(&folder.file());
    assert!(open(&folder.file()).find("first", &(0..10)).is_some());
}

#[test]
fn only_one_process_at_a_time_writes_a_file() {
    let folder = Folder::new("twice");
    let first = open(&folder.file());
    assert!(matches!(first, PackedStore::Writing { .. }));
    let taken = PackedWriter::create(&folder.file(), PACKING).map(|_| ());
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert!(matches!(open(&folder.file()), PackedStore::Off));
}
