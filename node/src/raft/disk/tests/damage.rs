use super::dice::Dice;
use super::machine::{Images, LOG, Machine, WITNESS};
use super::model::Model;
use super::trace::Trace;
use super::{CACHE_BYTES, created, open};
use crate::raft::disk::{Change, DiskError};

/// A small store as a kill leaves it, with all kinds of records, and what it holds.
fn small() -> (Images, Model) {
    let machine = created();
    let mut disk = open(&machine, CACHE_BYTES).unwrap();
    let mut model = Model::default();
    let entry = |number: u64| format!("entry {number}").into_bytes();
    let steps = [
        vec![
            Change::Identity(b"node 3".to_vec()),
            Change::Vote(b"term 1".to_vec()),
            Change::Append {
                first: 0,
                entries: (0..4).map(entry).collect(),
            },
        ],
        vec![
            Change::Snapshot {
                meta: b"through 1".to_vec(),
                data: vec![42; 200],
            },
            Change::PurgeThrough {
                index: 1,
                marker: b"1".to_vec(),
            },
        ],
        vec![
            Change::Append {
                first: 4,
                entries: vec![entry(4)],
            },
            Change::Committed(b"3".to_vec()),
        ],
    ];
    for step in steps {
        disk.commit(&step).unwrap();
        model.apply(&step);
    }
    let images = machine.images();
    drop(disk);
    (images, model)
}

/// The same, closed cleanly.
fn small_and_closed() -> (Images, Model) {
    let (images, model) = small();
    let machine = Machine::new(images);
    drop(open(&machine, CACHE_BYTES).unwrap());
    (machine.images(), model)
}

#[derive(Default, Debug)]
struct Tally {
    refused: u32,
    harmless: u32,
}

impl Tally {
    /// Refused as corrupt, or harmless: there is no third.
    fn count(&mut self, images: Images, model: &Model, what: &str) {
        let machine = Machine::new(images);
        match open(&machine, CACHE_BYTES) {
            Err(DiskError::Corrupt { .. }) => {
                self.refused += 1;
                // It stays refused: what redb rolled back is not taken for the truth the next time.
                if self.refused.is_multiple_of(16) {
                    let again = open(&machine, CACHE_BYTES).err();
                    assert!(
                        matches!(again, Some(DiskError::Corrupt { .. })),
                        "{what}: {again:?}"
                    );
                }
            }
            Err(error) => panic!("{what}: {error}"),
            Ok(mut disk) => {
                let found = Model::of(&mut disk).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(&found, model, "{what}");
                self.harmless += 1;
            }
        }
    }
}

/// Every byte that opening and reading the store looks at, and some of those that it does not.
fn places(images: &Images, file: usize) -> Vec<usize> {
    let machine = Machine::new(images.clone());
    machine.watch_reads();
    let mut disk = open(&machine, 0).unwrap();
    Model::of(&mut disk).unwrap();
    (0..images[file].len())
        .filter(|byte| byte % 97 == 0 || machine.has_read(file, *byte))
        .collect()
}

const HEADER_BYTES: usize = 320;

/// All bits where redb decides what is the newest, and in the witness; elsewhere one of each byte, as checksums do not
/// care which.
fn flip(images: &Images, model: &Model, file: usize, places: impl Iterator<Item = usize>) -> Tally {
    let mut tally = Tally::default();
    for byte in places {
        let all = file == WITNESS || byte < HEADER_BYTES;
        for bit in (0..8).filter(|bit| all || *bit == (byte % 8) as u32) {
            let mut bad = images.clone();
            bad[file][byte] ^= 1 << bit;
            tally.count(bad, model, &format!("bit {bit} of byte {byte} of file {file}"));
        }
    }
    tally
}

#[test]
fn a_flipped_bit_in_the_log_of_a_killed_node_is_found_or_harmless() {
    let (images, model) = small();
    let tally = flip(&images, &model, LOG, places(&images, LOG).into_iter());
    assert!(tally.refused > 500 && tally.harmless > 500, "{tally:?}");
}

#[test]
fn a_flipped_bit_in_the_log_of_a_stopped_node_is_found_or_harmless() {
    let (images, model) = small_and_closed();
    // What is new in such a store is the header; of the rest a third will do.
    let places = places(&images, LOG).into_iter();
    let places = places.filter(|byte| *byte < HEADER_BYTES || byte % 3 == 0);
    let tally = flip(&images, &model, LOG, places);
    assert!(tally.refused > 500 && tally.harmless > 500, "{tally:?}");
}

#[test]
fn a_flipped_bit_in_the_witness_is_found_or_harmless() {
    let (images, model) = small();
    let tally = flip(&images, &model, WITNESS, 0..images[WITNESS].len());
    // The older slot's bits are refused, the newer one's are healed.
    assert!(tally.refused >= 36 * 8 && tally.harmless >= 36 * 8, "{tally:?}");
}

#[test]
fn two_flipped_bits_one_in_each_file_are_found_or_harmless() {
    let (images, model) = small();
    let mut tally = Tally::default();
    let mut dice = Dice::new(5);
    let (log, witness) = (places(&images, LOG), places(&images, WITNESS));
    for _ in 0..600 {
        let mut bad = images.clone();
        let byte = log[dice.below(log.len() as u64) as usize];
        bad[LOG][byte] ^= 1 << dice.below(8);
        let other = witness[dice.below(witness.len() as u64) as usize];
        bad[WITNESS][other] ^= 1 << dice.below(8);
        tally.count(bad, &model, &format!("bytes {byte} and {other}"));
    }
    assert!(tally.refused > 0 && tally.harmless > 0, "{tally:?}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for (images, model) in [small(), small_and_closed()] {
        for file in [LOG, WITNESS] {
            let mut tally = Tally::default();
            for bytes in (0..images[file].len()).step_by(512) {
                let mut bad = images.clone();
                bad[file].truncate(bytes);
                tally.count(bad, &model, &format!("file {file} cut to {bytes} bytes"));
            }
            assert!(tally.refused > 0, "{tally:?}");
            assert!(file == LOG || tally.harmless == 0, "{tally:?}");
        }
    }
}

/// A node whose log or witness was put back from an older copy, or taken from another node.
#[test]
fn files_that_do_not_belong_together_are_refused() {
    let machine = created();
    let older = machine.images();
    let trace = Trace::new(20, &mut Dice::new(6));
    trace.run(&machine);
    let newer = machine.images();
    for mixed in [
        [older[LOG].clone(), newer[WITNESS].clone()],
        [newer[LOG].clone(), older[WITNESS].clone()],
        [Vec::new(), newer[WITNESS].clone()],
        [newer[LOG].clone(), Vec::new()],
        [Vec::new(), Vec::new()],
    ] {
        let mut tally = Tally::default();
        tally.count(mixed, trace.last(), "mixed");
        assert_eq!(tally.refused, 1);
    }
}

/// redb closes by a commit; not over a store that is not to be trusted.
#[test]
fn a_refused_store_is_not_closed_as_if_it_were_sound() {
    let machine = created();
    let older = machine.images();
    Trace::new(20, &mut Dice::new(6)).run(&machine);
    let machine = Machine::new([machine.images()[LOG].clone(), older[WITNESS].clone()]);
    assert!(open(&machine, CACHE_BYTES).is_err());
    let unclean = machine.images()[LOG][9] & 2 != 0;
    assert!(unclean, "redb's flag of a store in use");
}

/// The pages of an older step in the place of newer ones: a write that the disk lost after it had been synced.
#[test]
fn an_acknowledged_write_that_never_arrived_is_found() {
    let machine = created();
    let mut disk = open(&machine, CACHE_BYTES).unwrap();
    let vote = |number: u8| [Change::Vote(vec![number; 30])];
    for number in 0..20 {
        disk.commit(&vote(number)).unwrap();
        let before = machine.images();
        disk.commit(&vote(number + 100)).unwrap();
        let after = machine.images();
        let mut model = Model::default();
        model.apply(&vote(number + 100));
        let blocks = (0..after[LOG].len().div_ceil(512)).map(|block| block * 512);
        let mut tally = Tally::default();
        for start in blocks {
            let block = start..after[LOG].len().min(start + 512);
            if before[LOG].get(block.clone()) == Some(&after[LOG][block.clone()]) {
                continue;
            }
            let mut bad = after.clone();
            bad[LOG][block.clone()].copy_from_slice(&before[LOG][block]);
            tally.count(bad, &model, &format!("lost block at {start}"));
        }
        assert!(tally.refused > 0, "{tally:?}");
        // All of the step at once: redb alone sees nothing wrong with that.
        let mut lost = after;
        lost[LOG] = before[LOG].clone();
        tally = Tally::default();
        tally.count(lost, &model, "a lost step");
        assert_eq!(tally.refused, 1);
    }
}

/// Steps read pages, too, and write them anew with fresh checksums.
#[test]
fn a_bit_that_flips_under_an_open_store_is_not_written_on() {
    let (images, model) = small();
    let mut tally = Tally::default();
    for byte in places(&images, LOG).into_iter().step_by(11) {
        let machine = Machine::new(images.clone());
        let mut disk = open(&machine, 0).unwrap();
        let mut model = model.clone();
        machine.flip(LOG, byte, (byte % 8) as u32);
        for step in [
            [Change::TruncateFrom(4)],
            [Change::Vote(b"term 2".to_vec())],
            [Change::Append {
                first: 4,
                entries: vec![vec![4; 20]],
            }],
        ] {
            match disk.commit(&step) {
                Ok(()) => model.apply(&step),
                Err(DiskError::Corrupt { .. }) => break,
                Err(error) => panic!("byte {byte}: {error}"),
            }
        }
        drop(disk);
        tally.count(machine.images(), &model, &format!("byte {byte}"));
    }
    assert!(tally.refused > 100 && tally.harmless > 100, "{tally:?}");
}

#[test]
fn a_file_cut_under_an_open_store_is_found() {
    let (images, model) = small();
    let mut found = 0;
    for bytes in (0..images[LOG].len()).step_by(4096) {
        let machine = Machine::new(images.clone());
        let mut disk = open(&machine, 0).unwrap();
        machine.cut(LOG, bytes);
        match Model::of(&mut disk) {
            Ok(read) => assert_eq!(read, model, "cut to {bytes} bytes"),
            Err(DiskError::Corrupt { .. }) => found += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(found > 3, "{found} found");
}

/// Nothing is cached, so that reads meet the damage.
#[test]
fn a_bit_that_flips_under_an_open_store_is_found_by_reads() {
    let (images, model) = small();
    let mut tally = Tally::default();
    for byte in places(&images, LOG).into_iter().step_by(11) {
        let machine = Machine::new(images.clone());
        let mut disk = open(&machine, 0).unwrap();
        machine.flip(LOG, byte, (byte % 8) as u32);
        match Model::of(&mut disk) {
            Ok(found) => {
                assert_eq!(found, model, "byte {byte}");
                tally.harmless += 1;
            }
            Err(DiskError::Corrupt { .. }) => {
                tally.refused += 1;
                let after = disk.commit(&[Change::Vote(Vec::new())]);
                assert!(matches!(after, Err(DiskError::Poisoned { .. })), "{after:?}");
            }
            Err(error) => panic!("byte {byte}: {error}"),
        }
        // Whatever closing wrote, the next open finds what this one found, or the damage.
        drop(disk);
        tally.count(machine.images(), &model, &format!("byte {byte}, reopened"));
    }
    assert!(tally.refused > 100 && tally.harmless > 100, "{tally:?}");
}
