use super::dice::Dice;
use super::machine::{Images, Machine};
use super::model::Model;
use super::trace::{Trace, step};
use super::{CACHE_BYTES, created, open};
use crate::raft::disk::{Change, Disk, DiskError};

fn start(trace: &Trace) -> Images {
    let machine = created();
    trace.run(&machine);
    machine.images()
}

/// Some steps, with what is there after each.
fn steps(before: &Model, dice: &mut Dice) -> Vec<(Vec<Change>, Model)> {
    let mut model = before.clone();
    let mut steps = Vec::new();
    for _ in 0..6 {
        let step = step(&model, dice);
        model.apply(&step);
        steps.push((step, model.clone()));
    }
    steps
}

/// Takes the steps on a disk that is full after so many writes; the first that finds no space must have left no trace
/// in what is shown. Then there is space again, and all goes on. Returns how often the disk was full.
fn meet_a_full_disk(machine: &Machine, writes: u64, before: &Model, steps: &[(Vec<Change>, Model)]) -> u32 {
    let mut disk = open(machine, CACHE_BYTES).unwrap();
    machine.fill_after(Some(writes));
    let mut held = before.clone();
    let mut full = 0;
    for (step, after) in steps {
        match disk.commit(step) {
            Ok(()) => {}
            Err(DiskError::Full { .. }) => {
                full += 1;
                still_full(&mut disk, step, &held);
                machine.fill_after(None);
                disk.commit(step).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        held = after.clone();
        assert_eq!(Model::of(&mut disk).unwrap(), held, "full after {writes} writes");
    }
    machine.fill_after(None);
    drop(disk);
    assert_eq!(Model::of(&mut open(machine, CACHE_BYTES).unwrap()).unwrap(), held);
    full
}

fn still_full(disk: &mut Disk, step: &[Change], held: &Model) {
    let again = disk.commit(step);
    assert!(matches!(again, Err(DiskError::Full { .. })), "{again:?}");
    assert_eq!(disk.vote(), held.vote.as_deref());
    match Model::of(disk) {
        Ok(found) => assert_eq!(&found, held),
        Err(DiskError::Full { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_disk_that_is_full_at_any_write_loses_nothing_and_goes_on() {
    let trace = Trace::new(30, &mut Dice::new(1));
    let images = start(&trace);
    let mut full = 0;
    for seed in 0..4 {
        let steps = steps(trace.last(), &mut Dice::new(seed));
        for writes in 0.. {
            let machine = Machine::new(images.clone());
            if meet_a_full_disk(&machine, writes, trace.last(), &steps) == 0 {
                break;
            }
            full += 1;
        }
    }
    assert!(full > 100, "{full} times full");
}

#[test]
fn a_store_that_found_no_space_to_open_opens_later() {
    let trace = Trace::new(30, &mut Dice::new(4));
    let images = start(&trace);
    for writes in 0.. {
        let machine = Machine::new(images.clone());
        machine.fill_after(Some(writes));
        let first = open(&machine, CACHE_BYTES).err();
        machine.fill_after(None);
        let found = Model::of(&mut open(&machine, CACHE_BYTES).unwrap()).unwrap();
        assert_eq!(&found, trace.last(), "{writes} writes");
        match first {
            Some(DiskError::Full { .. }) => {}
            Some(error) => panic!("{error}"),
            None => break,
        }
    }
}

/// Space for `writes` more, then a step, then space again: whatever the step was told is true.
#[test]
fn a_step_on_a_disk_with_little_space_is_taken_or_not() {
    let trace = Trace::new(30, &mut Dice::new(2));
    let images = start(&trace);
    let (mut full, mut landed) = (0, 0);
    for writes in 0..60 {
        for retry in [Retry::Same, Retry::Other] {
            let machine = Machine::new(images.clone());
            let mut disk = open(&machine, CACHE_BYTES).unwrap();
            let mut model = trace.last().clone();
            let step = [Change::Append {
                first: model.log().end,
                entries: vec![vec![1; 3000], vec![2; 3000]],
            }];
            machine.fill_after(Some(writes));
            let first = disk.commit(&step);
            machine.fill_after(None);
            match first {
                Ok(()) => model.apply(&step),
                Err(DiskError::Full { .. }) => {
                    full += 1;
                    landed += u32::from(retried(&mut disk, &step, retry, &mut model));
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(Model::of(&mut disk).unwrap(), model, "{writes} writes");
            drop(disk);
            let found = Model::of(&mut open(&machine, CACHE_BYTES).unwrap()).unwrap();
            assert_eq!(found, model, "{writes} writes");
        }
    }
    assert!(full > 10 && landed > 0, "{full} times full, {landed} landed");
}

#[derive(Clone, Copy)]
enum Retry {
    Same,
    Other,
}

/// True: the first try had landed, and another step was told so.
fn retried(disk: &mut Disk, step: &[Change], retry: Retry, model: &mut Model) -> bool {
    let other = [Change::Vote(b"other".to_vec())];
    match retry {
        Retry::Same => {
            disk.commit(step).unwrap();
            model.apply(step);
            false
        }
        Retry::Other => match disk.commit(&other) {
            Ok(()) => {
                model.apply(&other);
                false
            }
            Err(DiskError::Landed { .. }) => {
                model.apply(step);
                assert_eq!(&Model::of(disk).unwrap(), model);
                disk.commit(&other).unwrap();
                model.apply(&other);
                true
            }
            Err(error) => panic!("{error}"),
        },
    }
}

/// fsyncgate: the next sync would succeed, and must not be believed.
#[test]
fn a_failed_sync_poisons_the_store_until_it_is_opened_anew() {
    let trace = Trace::new(30, &mut Dice::new(3));
    let images = start(&trace);
    let vote = [Change::Vote(b"new".to_vec())];
    let mut poisoned = 0;
    for syncs in 0..3 {
        let machine = Machine::new(images.clone());
        let mut disk = open(&machine, CACHE_BYTES).unwrap();
        // The first step after opening costs more.
        disk.commit(&[Change::Vote(b"old".to_vec())]).unwrap();
        machine.fail_a_sync_after(syncs);
        if disk.commit(&vote).is_ok() {
            continue;
        }
        poisoned += 1;
        for _ in 0..3 {
            let later = disk.commit(&vote);
            assert!(matches!(later, Err(DiskError::Poisoned { .. })), "{later:?}");
        }
        let read = disk.entries(disk.log());
        assert!(matches!(read, Err(DiskError::Poisoned { .. })), "{read:?}");
        let written = machine.images();
        drop(disk);
        assert_eq!(machine.images(), written, "a poisoned store writes nothing");
        let mut disk = open(&machine, CACHE_BYTES).unwrap();
        let mut after = trace.last().clone();
        after.apply(&[Change::Vote(b"old".to_vec())]);
        let found = Model::of(&mut disk).unwrap();
        let untouched = found == after;
        after.apply(&vote);
        assert!(untouched || found == after);
        disk.commit(&vote).unwrap();
        assert_eq!(Model::of(&mut disk).unwrap(), after);
    }
    assert_eq!(poisoned, 2, "a step has two syncs");
}

#[test]
fn a_step_costs_two_syncs() {
    let machine = created();
    let mut disk = open(&machine, CACHE_BYTES).unwrap();
    disk.commit(&[Change::Vote(vec![1])]).unwrap();
    let before = machine.syncs();
    for number in 0..10 {
        disk.commit(&[Change::Append {
            first: number,
            entries: vec![vec![1; 200]],
        }])
        .unwrap();
    }
    assert_eq!(machine.syncs() - before, 20);
}
