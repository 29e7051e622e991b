use super::dice::Dice;
use super::machine::Machine;
use super::model::Model;
use super::{CACHE_BYTES, open};
use crate::raft::disk::Change;

/// Steps such as Raft takes, and what the store holds after each of them; first the state before any.
pub struct Trace {
    pub steps: Vec<Vec<Change>>,
    pub states: Vec<Model>,
}

impl Trace {
    /// Until `entries` have been appended.
    pub fn new(entries: u64, dice: &mut Dice) -> Trace {
        let mut trace = Trace {
            steps: Vec::new(),
            states: vec![Model::default()],
        };
        let mut appended = 0;
        while appended < entries {
            let mut model = trace.last().clone();
            let step = step(&model, dice);
            for change in &step {
                if let Change::Append { entries, .. } = change {
                    appended += entries.len() as u64;
                }
            }
            model.apply(&step);
            trace.steps.push(step);
            trace.states.push(model);
        }
        trace
    }

    pub fn last(&self) -> &Model {
        self.states.last().unwrap()
    }

    /// Takes all steps on a machine with an empty store.
    pub fn run(&self, machine: &Machine) {
        let mut disk = open(machine, CACHE_BYTES).unwrap();
        for (number, step) in self.steps.iter().enumerate() {
            if number % 50 == 49 {
                drop(disk);
                disk = open(machine, CACHE_BYTES).unwrap();
            }
            disk.commit(step).unwrap();
            machine.acknowledge();
        }
    }
}

/// One or more changes that may follow upon this state.
pub fn step(model: &Model, dice: &mut Dice) -> Vec<Change> {
    let log = model.log();
    match dice.below(16) {
        0 => vec![Change::Vote(short(dice))],
        1 => vec![Change::Vote(short(dice)), append(log.end, dice)],
        2 => vec![Change::Committed(short(dice))],
        3 => vec![Change::Identity(short(dice))],
        4 => vec![Change::TruncateFrom(
            log.end - dice.below(3).min(log.end - log.start),
        )],
        5 if !log.is_empty() => {
            let cut = log.end - 1 - dice.below(4).min(log.end - 1 - log.start);
            vec![Change::TruncateFrom(cut), append(cut, dice)]
        }
        6 if log.end - log.start > 8 => vec![purge(log.end - 4, dice)],
        7 => vec![snapshot(dice)],
        8 if log.end - log.start > 8 => vec![snapshot(dice), purge(log.end - 3, dice)],
        // A follower that lagged behind is given a snapshot ahead of its log.
        9 if dice.below(4) == 0 => vec![snapshot(dice), purge(log.end + dice.below(5), dice)],
        _ => vec![append(log.end, dice), Change::Committed(short(dice))],
    }
}

fn append(first: u64, dice: &mut Dice) -> Change {
    let entries = (0..1 + dice.below(3)).map(|_| {
        let length = match dice.below(12) {
            0 => 0,
            1 => 5000,
            _ => dice.below(300) as usize,
        };
        dice.bytes(length)
    });
    Change::Append {
        first,
        entries: entries.collect(),
    }
}

fn purge(index: u64, dice: &mut Dice) -> Change {
    Change::PurgeThrough {
        index,
        marker: short(dice),
    }
}

fn snapshot(dice: &mut Dice) -> Change {
    let length = dice.below(3000) as usize;
    Change::Snapshot {
        meta: short(dice),
        data: dice.bytes(length),
    }
}

fn short(dice: &mut Dice) -> Vec<u8> {
    let length = dice.below(40) as usize;
    dice.bytes(length)
}
