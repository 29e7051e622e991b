//! Everything a disk does to a store, done to it: kills, lost and torn writes, flipped bits, cut files, full disks,
//! failed syncs.

mod crash;
mod damage;
pub mod dice;
mod folder;
mod full;
pub mod machine;
mod model;
mod property;
mod steps;
mod tamper;
mod trace;

use super::store::Files;
use super::{Disk, DiskError};
use machine::Machine;

/// Without a cache every read goes to the file.
fn open(machine: &Machine, cache_bytes: usize) -> Result<Disk, DiskError> {
    let mut files = Files::new("test".to_owned(), machine.log(), machine.witness());
    files.cache_bytes = cache_bytes;
    Disk::open_files(files, None)
}

const CACHE_BYTES: usize = 1 << 20;

/// A machine with an empty store.
fn created() -> Machine {
    let machine = Machine::new(Default::default());
    Files::new("test".to_owned(), machine.log(), machine.witness())
        .create([7; 16])
        .unwrap();
    machine
}
