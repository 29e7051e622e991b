//! What redb cannot see: pages that are whole, and records that are not those that were kept.

use super::machine::Machine;
use super::{CACHE_BYTES, created, open};
use crate::raft::disk::record::{Key, Kind, seal};
use crate::raft::disk::records::Records;
use crate::raft::disk::state::Write;
use crate::raft::disk::watched::Watched;
use crate::raft::disk::{Change, DiskError};
use std::sync::Arc;

fn store() -> Machine {
    let machine = created();
    let mut disk = open(&machine, CACHE_BYTES).unwrap();
    let entries = (0..5).map(|byte| vec![byte; 10]).collect();
    disk.commit(&[
        Change::Vote(b"vote".to_vec()),
        Change::Append { first: 0, entries },
        Change::Snapshot {
            meta: Vec::new(),
            data: vec![1; 100],
        },
    ])
    .unwrap();
    drop(disk);
    machine
}

fn entry(index: u64, sealed_as: u64) -> Write {
    let sealed = seal(Key::new(Kind::Entry, sealed_as), &[sealed_as as u8; 10]);
    Write::Put(Key::new(Kind::Entry, index), sealed)
}

#[test]
fn records_that_were_not_kept_so_are_refused() {
    let vote = Key::single(Kind::Vote);
    let tampered = [
        Write::Remove(Kind::Entry, 0..1),
        Write::Remove(Kind::Entry, 2..3),
        Write::Remove(Kind::Entry, 4..5),
        Write::Remove(Kind::Chunk, 0..1),
        Write::Remove(Kind::Vote, 0..1),
        Write::Remove(Kind::Manifest, 0..1),
        entry(2, 1),
        entry(5, 5),
        Write::Put(vote, seal(vote, b"older")),
        Write::Put(vote, seal(Key::single(Kind::Committed), b"vote")),
        Write::Put(
            Key::single(Kind::Committed),
            seal(Key::single(Kind::Committed), b"none"),
        ),
    ];
    for write in tampered {
        let machine = store();
        let log = Watched::new(Arc::new(machine.log()));
        let (records, _) = Records::open(log, CACHE_BYTES).unwrap();
        records.apply(std::slice::from_ref(&write)).unwrap();
        drop(records);
        let opened = open(&machine, CACHE_BYTES).err();
        assert!(
            matches!(opened, Some(DiskError::Corrupt { .. })),
            "{write:?}: {opened:?}"
        );
    }
}

#[test]
fn a_record_written_as_it_was_is_no_tampering() {
    let machine = store();
    let log = Watched::new(Arc::new(machine.log()));
    let (records, _) = Records::open(log, CACHE_BYTES).unwrap();
    records.apply(&[entry(2, 2)]).unwrap();
    drop(records);
    open(&machine, CACHE_BYTES).unwrap();
}

#[test]
fn reading_finds_a_missing_record() {
    let machine = store();
    let log = Watched::new(Arc::new(machine.log()));
    let (records, _) = Records::open(log, CACHE_BYTES).unwrap();
    records.apply(&[Write::Remove(Kind::Entry, 2..3)]).unwrap();
    for indices in [0..5, 2..3, 1..3, 2..4] {
        assert!(records.read(Kind::Entry, indices.clone()).is_err(), "{indices:?}");
    }
    assert_eq!(records.read(Kind::Entry, 0..2).unwrap().len(), 2);
}
