use super::dice::Dice;
use super::machine::{Crash, Images, LOSSES, Loss, Machine, each_crash};
use super::model::Model;
use super::trace::Trace;
use super::{CACHE_BYTES, created, open};
use crate::raft::disk::Change;

/// What was acknowledged is there; the step under way, wholly or not at all. Returns what is there.
fn check(trace: &Trace, images: Images, acknowledged: usize, context: &str) -> (Machine, Model) {
    let machine = Machine::new(images);
    let mut disk = open(&machine, CACHE_BYTES).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = Model::of(&mut disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let allowed = &trace.states[acknowledged..trace.states.len().min(acknowledged + 2)];
    assert!(
        allowed.contains(&found),
        "{context}: the store holds {:?}, due is {:?}",
        found.log(),
        allowed.iter().map(Model::log).collect::<Vec<_>>()
    );
    // The store goes on.
    disk.commit(&[Change::Vote(b"after the crash".to_vec())]).unwrap();
    (machine, found)
}

fn describe(crash: &Crash, loss: Loss, seed: u64) -> String {
    format!(
        "sync {}, {} steps acknowledged, {loss:?}, seed {seed}",
        crash.number, crash.acknowledged
    )
}

/// Two of the six losses at every sync, in turns, each time with another seed; the next test has all.
#[test]
fn a_kill_at_every_sync_loses_nothing_acknowledged() {
    let trace = Trace::new(1000, &mut Dice::new(1));
    let machine = created();
    machine.take_journal();
    let start = machine.images();
    trace.run(&machine);
    let mut kills = 0;
    each_crash(&start, &machine.take_journal(), |crash| {
        for _ in 0..2 {
            let seed = kills;
            let loss = LOSSES[(seed as usize + crash.number / 2) % LOSSES.len()];
            let images = crash.image(loss, &mut Dice::new(seed));
            check(&trace, images, crash.acknowledged, &describe(&crash, loss, seed));
            kills += 1;
        }
    });
    assert!(kills > 1500, "{kills} kills");
}

#[test]
fn a_kill_at_every_sync_with_every_loss_and_several_seeds() {
    let trace = Trace::new(40, &mut Dice::new(2));
    let machine = created();
    machine.take_journal();
    let start = machine.images();
    trace.run(&machine);
    each_crash(&start, &machine.take_journal(), |crash| {
        for loss in LOSSES {
            for seed in 0..3 {
                let images = crash.image(loss, &mut Dice::new(seed));
                check(&trace, images, crash.acknowledged, &describe(&crash, loss, seed));
            }
        }
    });
}

/// A machine that dies, and dies again while the store is opened and closed.
#[test]
fn a_kill_at_every_sync_of_the_recovery_loses_nothing() {
    let trace = Trace::new(200, &mut Dice::new(3));
    let machine = created();
    machine.take_journal();
    let start = machine.images();
    trace.run(&machine);
    each_crash(&start, &machine.take_journal(), |first| {
        if !first.number.is_multiple_of(5) {
            return;
        }
        let loss = LOSSES[first.number / 5 % LOSSES.len()];
        let images = first.image(loss, &mut Dice::new(first.number as u64));
        let machine = Machine::new(images.clone());
        let found = Model::of(&mut open(&machine, CACHE_BYTES).unwrap()).unwrap();
        each_crash(&images, &machine.take_journal(), |second| {
            let seed = second.number as u64;
            let loss = LOSSES[second.number % LOSSES.len()];
            let images = second.image(loss, &mut Dice::new(seed));
            let mut disk = open(&Machine::new(images), CACHE_BYTES).unwrap();
            // What the first recovery found may have been acted upon.
            assert_eq!(
                Model::of(&mut disk).unwrap(),
                found,
                "{}",
                describe(&first, loss, seed)
            );
        });
    });
}

#[test]
fn a_restart_after_a_crash_finds_the_same() {
    let trace = Trace::new(200, &mut Dice::new(4));
    let machine = created();
    machine.take_journal();
    let start = machine.images();
    trace.run(&machine);
    each_crash(&start, &machine.take_journal(), |crash| {
        let loss = LOSSES[crash.number % LOSSES.len()];
        let context = describe(&crash, loss, 9);
        let images = crash.image(loss, &mut Dice::new(9));
        let (machine, mut found) = check(&trace, images, crash.acknowledged, &context);
        found.apply(&[Change::Vote(b"after the crash".to_vec())]);
        let again = Model::of(&mut open(&machine, CACHE_BYTES).unwrap()).unwrap();
        assert_eq!(again, found, "{context}");
    });
}
