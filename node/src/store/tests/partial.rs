//! Files that come in parts, and what a crash, a full disk and wrong bytes leave of them.

use super::{Folder, no_hub, no_python, spec};
use crate::hex;
use crate::store::chunk_set::ChunkSet;
use crate::store::chunks::{self, Manifest};
use crate::store::error::StoreError;
use crate::store::inventory::FileKind;
use crate::store::partial::Partial;
use crate::store::{Check, Opening, Promotion, Store, Weeded};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const CHUNK: u32 = 1000;
/// Not whole chunks, and more of them than are synced at a time.
const BYTES: usize = 20_500;

fn file() -> Vec<u8> {
    (0..BYTES).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn digest() -> [u8; 32] {
    Sha256::digest(file()).into()
}

fn manifest() -> Manifest {
    Manifest {
        file_bytes: BYTES as u64,
        chunk_bytes: CHUNK,
        digests: file()
            .chunks(CHUNK as usize)
            .map(|chunk| Sha256::digest(chunk).into())
            .collect(),
    }
}

fn chunk(index: u32) -> Vec<u8> {
    let place = manifest().place(index);
    file()[place.start as usize..place.end as usize].to_vec()
}

fn store(folder: &Folder) -> Store {
    Store::open(&folder.0, no_hub(), no_python()).unwrap()
}

fn open(store: &Store) -> Partial {
    match store.open_partial(&digest(), &manifest()).unwrap() {
        Opening::Parts(partial) => partial,
        Opening::Whole(_) | Opening::Elsewhere => panic!("it is neither whole nor fetched by another"),
    }
}

fn write_all(partial: &Partial) {
    for index in 0..manifest().chunks() {
        assert!(partial.write_chunk(index, &chunk(index)).unwrap());
    }
}

fn set(indices: impl IntoIterator<Item = u32>) -> ChunkSet {
    let mut set = ChunkSet::none(manifest().chunks());
    indices.into_iter().for_each(|index| set.insert(index));
    set
}

fn place(folder: &Folder, name: &str) -> PathBuf {
    folder.0.join("partial").join(hex::encode(&digest())).join(name)
}

#[test]
fn a_file_and_its_chunks_are_hashed_in_one_reading() {
    let folder = Folder::new("hashed");
    let path = folder.0.join("file");
    fs::write(&path, file()).unwrap();
    assert_eq!(chunks::of_file(&path, CHUNK).unwrap(), (digest(), manifest()));
}

#[test]
fn chunks_in_any_order_become_a_blob() {
    let folder = Folder::new("promoted");
    let store = store(&folder);
    let partial = open(&store);
    for index in (0..manifest().chunks()).rev() {
        assert!(!partial.is_whole());
        assert_eq!(partial.read_chunk(index).unwrap(), None);
        assert!(partial.write_chunk(index, &chunk(index)).unwrap());
        assert_eq!(partial.read_chunk(index).unwrap(), Some(chunk(index)));
    }
    let Promotion::Whole(stored) = store.promote(&partial).unwrap() else {
        panic!("nothing is damaged");
    };
    assert_eq!(fs::read(&stored.path).unwrap(), file());
    assert!(!place(&folder, "").exists(), "the partial is gone");
    assert_eq!(
        partial.read_chunk(3).unwrap(),
        Some(chunk(3)),
        "who reads goes on"
    );
    assert_eq!(store.find_held(&digest()).unwrap(), Some(stored.clone()));
    assert_eq!(store.manifest(&stored).unwrap(), manifest());
    assert!(matches!(
        store.open_partial(&digest(), &manifest()).unwrap(),
        Opening::Whole(_)
    ));
}

#[test]
fn a_wrong_chunk_is_not_taken_in() {
    let folder = Folder::new("wrong-chunk");
    let store = store(&folder);
    let partial = open(&store);
    let mut wrong = chunk(2);
    wrong[17] ^= 1;
    assert!(!partial.write_chunk(2, &wrong).unwrap());
    assert!(!partial.write_chunk(3, &chunk(2)).unwrap());
    assert!(!partial.write_chunk(2, &chunk(2)[..999]).unwrap());
    assert!(!partial.write_chunk(21, &[]).unwrap(), "there is no such chunk");
    assert!(partial.here().is_empty());
}

#[test]
fn what_was_noted_is_there_again_and_the_rest_is_not_claimed() {
    let folder = Folder::new("noted");
    let store = store(&folder);
    let partial = open(&store);
    (0..18).for_each(|index| assert!(partial.write_chunk(index, &chunk(index)).unwrap()));
    // What a crash at this moment leaves: the first sixteen are noted.
    let noted = fs::read(place(&folder, "landed")).unwrap();
    drop(partial);
    assert_eq!(open(&store).here(), set(0..18), "in order, all are noted");
    for (entries, expected) in [
        (noted.clone(), 16),
        (noted[..noted.len() - 3].to_vec(), 15),
        ([noted.clone(), vec![0; 64]].concat(), 16),
        ([&noted[..80], &[9; 8], &noted[88..]].concat(), 10),
        (Vec::new(), 0),
    ] {
        fs::write(place(&folder, "landed"), &entries).unwrap();
        let partial = open(&store);
        assert_eq!(partial.here(), set(0..expected));
        write_all(&partial);
        drop(partial);
        assert_eq!(open(&store).here(), set(0..21));
    }
}

#[test]
fn what_is_let_go_is_free_though_a_process_being_started_has_inherited_its_file() {
    let folder = Folder::new("inherited");
    let store = store(&folder);
    let partial = open(&store);
    let inherited = partial.inherited();
    drop(partial);
    assert!(open(&store).here().is_empty());
    drop(inherited);
}

#[test]
fn nothing_is_claimed_of_data_that_is_gone_or_of_another_file() {
    let folder = Folder::new("gone");
    let store = store(&folder);
    write_all(&open(&store));
    fs::remove_file(place(&folder, "data")).unwrap();
    assert!(open(&store).here().is_empty());
    write_all(&open(&store));
    let mut other = manifest();
    other.digests[5] = [0; 32];
    let Opening::Parts(partial) = store.open_partial(&digest(), &other).unwrap() else {
        panic!("it is fetched anew");
    };
    assert!(partial.here().is_empty());
}

#[test]
fn a_crash_at_each_step_of_the_promotion_leaves_a_partial_or_a_blob() {
    let folder = Folder::new("promotion");
    let store = store(&folder);
    write_all(&open(&store));
    // Before the rename.
    let partial = open(&store);
    assert!(partial.is_whole());
    // After it, and before the folder went.
    let blob = folder.0.join("blobs").join(hex::encode(&digest()));
    fs::rename(partial.path(), &blob).unwrap();
    drop(partial);
    assert!(matches!(
        store.open_partial(&digest(), &manifest()).unwrap(),
        Opening::Whole(_)
    ));
    let unfinished = store.inventory().unwrap().unfinished;
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].kind, FileKind::Partial);
    assert_eq!(store.collect(None).unwrap().removed.len(), 1);
    assert!(blob.exists() && !place(&folder, "").exists());
}

#[test]
fn a_chunk_that_rots_on_the_disk_is_fetched_again_before_the_file_is_whole() {
    let folder = Folder::new("rots");
    let store = store(&folder);
    let partial = open(&store);
    write_all(&partial);
    let data = File::options().write(true).open(partial.path()).unwrap();
    data.write_all_at(&[1, 2, 3], 7_100).unwrap();
    assert!(matches!(store.promote(&partial).unwrap(), Promotion::Damaged));
    assert_eq!(partial.here(), set((0..21).filter(|index| *index != 7)));
    drop(partial);
    let partial = open(&store);
    assert!(!partial.has(7), "nor after a restart");
    assert!(partial.write_chunk(7, &chunk(7)).unwrap());
    assert!(matches!(store.promote(&partial).unwrap(), Promotion::Whole(_)));
}

#[test]
fn a_manifest_of_another_file_is_found_out_and_nothing_is_kept() {
    let folder = Folder::new("lie");
    let store = store(&folder);
    let Opening::Parts(partial) = store.open_partial(&[7; 32], &manifest()).unwrap() else {
        panic!("nobody holds that");
    };
    write_all(&partial);
    let error = store.promote(&partial).err().expect("it is another file");
    assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    drop(partial);
    assert!(store.find_held(&[7; 32]).unwrap().is_none());
    assert!(folder.files().iter().all(|file| file != "data"));
}

#[test]
fn a_full_disk_is_told_and_what_was_there_stays() {
    let folder = Folder::new("full-parts");
    let store = store(&folder);
    let partial = open(&store);
    partial.fill_after(Some(3));
    (0..3).for_each(|index| assert!(partial.write_chunk(index, &chunk(index)).unwrap()));
    let error = partial.write_chunk(3, &chunk(3)).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull(_)), "{error}");
    assert_eq!(partial.here(), set(0..3));
    assert_eq!(partial.read_chunk(1).unwrap(), Some(chunk(1)));
    drop(partial);
    let partial = open(&store);
    assert_eq!(partial.here(), set(0..3), "also after a restart");
    write_all(&partial);
    assert!(matches!(store.promote(&partial).unwrap(), Promotion::Whole(_)));
}

#[test]
fn one_process_fetches_and_the_partial_is_not_collected_meanwhile() {
    let folder = Folder::new("held");
    let (mine, theirs) = (store(&folder), store(&folder));
    let partial = open(&mine);
    partial.write_chunk(0, &chunk(0)).unwrap();
    partial.settle().unwrap();
    assert!(matches!(
        theirs.open_partial(&digest(), &manifest()).unwrap(),
        Opening::Elsewhere
    ));
    let models = theirs.inventory().unwrap().models;
    assert_eq!((models.len(), models[0].in_use), (1, true));
    let (taken, whole) = (models[0].bytes_of(FileKind::Partial), BYTES as u64);
    assert!(taken > 0 && taken < whole, "only what is there counts: {taken}");
    assert!(theirs.collect(Some(0)).unwrap().removed.is_empty());
    drop(partial);
    assert!(theirs.collect(None).unwrap().removed.is_empty(), "it may go on");
    assert_eq!(open(&theirs).here(), set([0]));
    assert_eq!(theirs.collect(Some(0)).unwrap().removed.len(), 1);
    assert!(!place(&folder, "").exists());
}

#[test]
fn a_damaged_blob_leaves_its_sound_chunks_also_where_another_process_keeps_parts() {
    let folder = Folder::new("kept-and-damaged");
    let (mine, theirs) = (store(&folder), store(&folder));
    let kept = open(&mine);
    kept.keep().unwrap();
    let whole = open(&theirs);
    write_all(&whole);
    let Promotion::Whole(stored) = theirs.promote(&whole).unwrap() else {
        panic!("nothing is damaged");
    };
    drop(whole);
    let file = File::options().write(true).open(&stored.path).unwrap();
    file.write_all_at(&[!chunk(3)[0]], 3 * u64::from(CHUNK)).unwrap();
    assert_eq!(theirs.weed(&digest()).unwrap(), Weeded::Chunks(1));
    assert_eq!(
        mine.weed(&digest()).unwrap(),
        Weeded::Nothing,
        "somebody was first"
    );
    let mut sound = ChunkSet::all(manifest().chunks());
    sound.remove(3);
    assert_eq!(open(&theirs).here(), sound);
}

#[test]
fn where_one_process_keeps_parts_another_has_a_folder_of_its_own() {
    let folder = Folder::new("kept");
    let (mine, theirs) = (store(&folder), store(&folder));
    let first = open(&mine);
    first.write_chunk(0, &chunk(0)).unwrap();
    first.keep().unwrap();
    let second = open(&theirs);
    assert_ne!(first.path(), second.path());
    assert!(second.here().is_empty(), "each knows what it has");
    second.write_chunk(5, &chunk(5)).unwrap();
    second.keep().unwrap();
    let models = theirs.inventory().unwrap().models;
    assert_eq!((models.len(), models[0].in_use), (1, true));
    assert_eq!(models[0].files.len(), 2);
    assert!(mine.collect(Some(0)).unwrap().removed.is_empty());
    drop(first);
    let again = open(&mine);
    assert_eq!(again.here(), set([0]), "the first that is free");
    assert!(
        matches!(
            theirs.open_partial(&digest(), &manifest()).unwrap(),
            Opening::Elsewhere
        ),
        "it has not said yet that it keeps it"
    );
    write_all(&again);
    assert!(matches!(mine.promote(&again).unwrap(), Promotion::Whole(_)));
    assert_eq!(second.read_chunk(5).unwrap(), Some(chunk(5)), "who reads goes on");
    drop(second);
    assert_eq!(mine.collect(None).unwrap().removed.len(), 1, "of no use any more");
}

#[test]
fn a_partial_that_nobody_goes_on_with_is_collected() {
    let folder = Folder::new("abandoned");
    let store = store(&folder);
    drop(open(&store));
    let long_ago = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    let landed = File::options().write(true).open(place(&folder, "landed"));
    landed.unwrap().set_modified(long_ago).unwrap();
    assert_eq!(store.collect(None).unwrap().removed.len(), 1);
    assert!(!place(&folder, "").exists());
}

#[tokio::test]
async fn whoever_waits_for_chunks_is_told_when_they_have_landed() {
    let folder = Folder::new("waits");
    let store = store(&folder);
    let partial = open(&store);
    let layers = partial.chunks_of(&[2_500..3_000, 3_000..4_001]);
    assert_eq!(layers, set(2..5));
    let waiting = tokio::spawn({
        let (partial, layers) = (partial.clone(), layers.clone());
        async move {
            partial.wait_for(&layers).await;
            partial.read(2_500..4_001).unwrap()
        }
    });
    for index in [4, 0, 3] {
        partial.write_chunk(index, &chunk(index)).unwrap();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
    }
    partial.write_chunk(2, &chunk(2)).unwrap();
    assert_eq!(waiting.await.unwrap(), Some(file()[2_500..4_001].to_vec()));
    assert_eq!(partial.read(2_500..5_001).unwrap(), None, "chunk 5 is not here");
}

#[test]
fn no_manifest_is_made_of_a_file_that_has_changed() {
    let folder = Folder::new("changed");
    let store = store(&folder);
    let path = folder.0.join("mine.gguf");
    fs::write(&path, file()).unwrap();
    let own = format!("{}", path.display());
    let stored = store.resolve(&spec(&own), Check::Length).unwrap();
    assert_eq!(store.find_held(&digest()).unwrap(), Some(stored.clone()));
    let made = store.manifest(&stored).unwrap();
    assert_eq!(made.digests, [digest()], "shorter than one chunk");
    fs::remove_file(folder.0.join("chunks").join(hex::encode(&digest()))).unwrap();
    let mut changed = file();
    changed[5] ^= 1;
    fs::write(&path, changed).unwrap();
    let error = store.manifest(&stored).unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    fs::write(&path, b"short").unwrap();
    assert_eq!(store.find_held(&digest()).unwrap(), None);
}

fn turn(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

#[test]
fn a_blob_that_rots_is_here_as_far_as_it_is_sound() {
    let folder = Folder::new("weeded-blob");
    let store = store(&folder);
    let partial = open(&store);
    write_all(&partial);
    let Promotion::Whole(stored) = store.promote(&partial).unwrap() else {
        panic!("nothing is damaged");
    };
    drop(partial);
    assert_eq!(store.weed(&digest()).unwrap(), Weeded::Nothing);
    assert_eq!(fs::read(&stored.path).unwrap(), file(), "what is sound stays");
    turn(&stored.path, 3_999);
    turn(&stored.path, 20_499);
    assert_eq!(store.weed(&digest()).unwrap(), Weeded::Chunks(2));
    assert_eq!(store.find_held(&digest()).unwrap(), None);
    let partial = open(&store);
    assert_eq!(partial.here(), set((0..20).filter(|index| *index != 3)));
    assert!(partial.write_chunk(3, &chunk(3)).unwrap() && partial.write_chunk(20, &chunk(20)).unwrap());
    assert!(matches!(store.promote(&partial).unwrap(), Promotion::Whole(_)));
    assert_eq!(fs::read(&stored.path).unwrap(), file());
}

#[test]
fn a_damaged_blob_without_its_manifest_goes_and_one_that_is_fetched_is_not_taken_from_its_fetcher() {
    let folder = Folder::new("weeded-whole");
    let store = store(&folder);
    let blob = folder.0.join("blobs").join(hex::encode(&digest()));
    let mut damaged = file();
    damaged[9] ^= 1;
    fs::write(&blob, &damaged).unwrap();
    assert_eq!(
        store.weed(&digest()).unwrap(),
        Weeded::Chunks(1),
        "one large chunk"
    );
    assert!(!blob.exists());
    let partial = open(&store);
    assert!(partial.write_chunk(1, &chunk(1)).unwrap());
    chunks::keep(&chunks::place(&folder.0, &hex::encode(&digest())), &manifest()).unwrap();
    fs::write(&blob, &damaged).unwrap();
    assert_eq!(store.weed(&digest()).unwrap(), Weeded::Chunks(1));
    assert!(!blob.exists());
    assert_eq!(partial.here(), set([1]));
    assert_eq!(partial.read_chunk(1).unwrap(), Some(chunk(1)));
}

#[test]
fn what_rots_of_a_partial_is_not_here_any_more() {
    let folder = Folder::new("weeded-parts");
    let store = store(&folder);
    let partial = open(&store);
    (0..9).for_each(|index| assert!(partial.write_chunk(index, &chunk(index)).unwrap()));
    partial.settle().unwrap();
    turn(&partial.path(), 5_000);
    turn(&partial.path(), 7_000);
    assert_eq!(
        partial.weed(&set([4, 5, 20])).unwrap(),
        1,
        "no others were looked at"
    );
    assert_eq!(partial.here(), set([0, 1, 2, 3, 4, 6, 7, 8]));
    assert_eq!(partial.weed(&partial.here()).unwrap(), 1);
    drop(partial);
    assert_eq!(
        open(&store).here(),
        set([0, 1, 2, 3, 4, 6, 8]),
        "nor after a restart"
    );
}

#[test]
fn an_own_file_that_rots_is_left_as_it_is_and_leads_nowhere() {
    let folder = Folder::new("weeded-own");
    let store = store(&folder);
    let path = folder.0.join("mine.gguf");
    fs::write(&path, file()).unwrap();
    let own = path.canonicalize().unwrap();
    let stored = store.resolve(&spec(&own.display().to_string()), Check::Length);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    turn(&path, 100);
    let touched = File::options().write(true).open(&path).unwrap();
    touched.set_modified(modified).unwrap();
    assert_eq!(store.find_held(&digest()).unwrap(), Some(stored.unwrap()));
    assert_eq!(store.weed(&digest()).unwrap(), Weeded::OwnFile(own));
    assert_eq!(store.find_held(&digest()).unwrap(), None);
    assert!(path.exists());
}
