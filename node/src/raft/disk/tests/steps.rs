use super::model::Model;
use super::{CACHE_BYTES, created, open};
use crate::raft::disk::state::CHUNK_BYTES;
use crate::raft::disk::{Change, Disk, DiskError, Purged};

fn empty() -> Disk {
    open(&created(), CACHE_BYTES).unwrap()
}

fn append(first: u64, count: u8) -> Change {
    Change::Append {
        first,
        entries: (0..count).map(|byte| vec![byte; 10]).collect(),
    }
}

fn snapshot() -> Change {
    Change::Snapshot {
        meta: b"meta".to_vec(),
        data: b"data".to_vec(),
    }
}

fn purge(index: u64) -> Change {
    Change::PurgeThrough {
        index,
        marker: b"marker".to_vec(),
    }
}

#[test]
fn a_new_store_is_empty() {
    let mut disk = empty();
    assert_eq!(Model::of(&mut disk).unwrap(), Model::default());
    assert_eq!((disk.first_index(), disk.last_index()), (None, None));
}

#[test]
#[should_panic(expected = "continue the log")]
fn a_hole_is_refused() {
    let _ = empty().commit(&[append(0, 3), append(4, 1)]);
}

#[test]
#[should_panic(expected = "continue the log")]
fn an_overlap_is_refused() {
    let _ = empty().commit(&[append(0, 3), append(2, 1)]);
}

#[test]
#[should_panic(expected = "without a snapshot")]
fn purging_beyond_the_log_needs_a_snapshot() {
    let _ = empty().commit(&[append(0, 3), purge(3)]);
}

#[test]
#[should_panic(expected = "the log begins at 3")]
fn purging_never_goes_backwards() {
    let _ = empty().commit(&[append(0, 5), purge(2), purge(1)]);
}

#[test]
#[should_panic(expected = "truncated from 1")]
fn what_was_purged_is_not_truncated() {
    let _ = empty().commit(&[append(0, 5), purge(2), Change::TruncateFrom(1)]);
}

#[test]
fn a_snapshot_ahead_of_the_log_empties_it_and_the_log_goes_on_behind() {
    let mut disk = empty();
    disk.commit(&[append(0, 3)]).unwrap();
    disk.commit(&[snapshot(), purge(100)]).unwrap();
    assert_eq!(disk.log(), 101..101);
    let (index, marker) = (100, &b"marker"[..]);
    assert_eq!(disk.purged(), Some(Purged { index, marker }));
    disk.commit(&[append(101, 2)]).unwrap();
    assert_eq!((disk.first_index(), disk.last_index()), (Some(101), Some(102)));
}

#[test]
fn what_is_not_kept_cannot_be_read() {
    let mut disk = empty();
    disk.commit(&[append(0, 5), purge(1)]).unwrap();
    for indices in [0..3, 1..2, 2..6, 9..10] {
        let read = disk.entries(indices);
        assert!(matches!(read, Err(DiskError::Outside { .. })), "{read:?}");
    }
    assert_eq!(disk.entries(2..5).unwrap().len(), 3);
    assert_eq!(disk.entries(7..7).unwrap().len(), 0);
}

#[test]
fn snapshots_of_all_sizes_come_back() {
    let machine = created();
    let mut disk = open(&machine, CACHE_BYTES).unwrap();
    let mut model = Model::default();
    let large = 24 << 20;
    for bytes in [0, 1, CHUNK_BYTES, large, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 2] {
        let data = (0..bytes).map(|byte| (byte * 7 % 251) as u8).collect();
        let meta = bytes.to_le_bytes().to_vec();
        let step = [Change::Snapshot { meta, data }];
        disk.commit(&step).unwrap();
        model.apply(&step);
        assert!(Model::of(&mut disk).unwrap() == model, "{bytes} bytes");
        drop(disk);
        disk = open(&machine, CACHE_BYTES).unwrap();
        assert!(Model::of(&mut disk).unwrap() == model, "{bytes} bytes, reopened");
    }
}
