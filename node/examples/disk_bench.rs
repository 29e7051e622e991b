//! `cargo run --release -p node --example disk_bench -- FOLDER`: what a step of Raft's disk costs there.
//!
//! Commits 1,000 entries of 200 bytes one by one, and says how long one took; beside it, what the disk takes to write
//! and sync as much in place, of which a step can do no less than two.

use node::raft::disk::{Change, Disk};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const COMMITS: u64 = 1000;
const ENTRY_BYTES: usize = 200;

fn main() {
    let folder = std::env::args().nth(1).expect("a folder to write in");
    let folder = Path::new(&folder).join(format!("disk-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    report("commit", commits(&folder));
    report("write and sync", syncs(&folder.join("plain")));
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

fn commits(folder: &Path) -> Vec<Duration> {
    let mut disk = Disk::make(folder).expect("the store can be made");
    timed(|first| {
        let entries = vec![vec![first as u8; ENTRY_BYTES]];
        disk.commit(&[Change::Append { first, entries }])
            .expect("there is space");
    })
}

fn syncs(path: &Path) -> Vec<Duration> {
    let file = File::create(path).expect("the file can be made");
    timed(|number| {
        file.write_all_at(&[number as u8; ENTRY_BYTES], 0)
            .expect("there is space");
        file.sync_data().expect("the disk answers");
    })
}

fn timed(mut work: impl FnMut(u64)) -> Vec<Duration> {
    let time = |number| {
        let start = Instant::now();
        work(number);
        start.elapsed()
    };
    (0..COMMITS).map(time).collect()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: min {:?}, median {:?}, p99 {:?}",
        at(0.0),
        at(0.5),
        at(0.99)
    );
}
