//! Where the epochs of a node's run begin, so that none comes twice, also where the cluster cannot be asked.
//!
//! The log gives each run epochs of its own. A run that begins without a quorum takes those beyond, which it is given when the
//! cluster hears of it; and of several such runs each takes others.

use coordinator::cluster_state::EPOCHS_OF_A_RUN;
use proto::{Epoch, ReplicaId};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of one run of a node. Cheap to copy.
#[derive(Clone)]
pub struct Epochs(Arc<Shared>);

struct Shared {
    path: PathBuf,
    run: Mutex<Run>,
}

struct Run {
    /// Before these nothing begins.
    first: BTreeMap<ReplicaId, u64>,
    /// Where the next run may begin, as the file says.
    next: BTreeMap<ReplicaId, u64>,
    /// The last that each replica has begun in this run.
    begun: BTreeMap<ReplicaId, u64>,
}

impl Epochs {
    /// Of the run that begins now, on a file that the runs of a node leave to each other; the first finds none. One that is
    /// there and does not say all of it (`InvalidData`) is not to be used: an epoch could come twice.
    pub fn open(path: PathBuf) -> io::Result<Epochs> {
        let next = match fs::read_to_string(&path) {
            Ok(text) => parse(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let run = Mutex::new(Run {
            first: next.clone(),
            next,
            begun: BTreeMap::new(),
        });
        Ok(Epochs(Arc::new(Shared { path, run })))
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.0.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster cannot be asked, and gave this epoch to an earlier run.
    pub fn begin_beyond(&self, replica: ReplicaId, given: Epoch) {
        let mut run = self.run();
        let first = run.first.entry(replica).or_default();
        *first = (*first).max(given.0 + EPOCHS_OF_A_RUN);
    }

    /// A replica has counted up to this epoch.
    pub fn begun(&self, replica: ReplicaId, epoch: Epoch) {
        self.run().begun.insert(replica, epoch.0);
    }

    /// With which a replica begins that the cluster knows by this epoch: the same for the whole run, or the one after those that
    /// it has begun in it. That epochs of the run are used is durable.
    pub fn first_of(&self, replica: ReplicaId, known: Epoch) -> io::Result<Epoch> {
        let mut run = self.run();
        let first = run
            .first
            .get(&replica)
            .map_or(known.0, |first| known.0.max(*first));
        let next = first + EPOCHS_OF_A_RUN;
        if run.next.get(&replica).is_none_or(|kept| *kept < next) {
            let before = run.next.insert(replica, next);
            if let Err(error) = write(&self.0.path, &run.next) {
                match before {
                    Some(before) => run.next.insert(replica, before),
                    None => run.next.remove(&replica),
                };
                return Err(error);
            }
        }
        let begun = run.begun.get(&replica).map_or(first, |begun| begun + 1);
        Ok(Epoch(first.max(begun)))
    }
}

/// A line for each replica: its id, and where the next run may begin.
fn parse(text: &str) -> io::Result<BTreeMap<ReplicaId, u64>> {
    let line = |line: &str| {
        let (replica, next) = line.split_once(' ')?;
        Some((ReplicaId(replica.parse().ok()?), next.parse().ok()?))
    };
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if !text.ends_with('\n') {
        return Err(bad("its end is missing".to_owned()));
    }
    let lines = text.lines().map(|text| {
        let unreadable = || bad(format!("`{text}` is no replica with an epoch"));
        line(text).ok_or_else(unreadable)
    });
    lines.collect()
}

/// After a crash the old content is there, or the new one.
fn write(path: &Path, next: &BTreeMap<ReplicaId, u64>) -> io::Result<()> {
    write_durably(path, next).map_err(|error| {
        let what = format!(
            "{}: {error}: see that there is space and that it can be written, then start the node again",
            path.display()
        );
        io::Error::new(error.kind(), what)
    })
}

fn write_durably(path: &Path, next: &BTreeMap<ReplicaId, u64>) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    for (replica, next) in next {
        writeln!(file, "{} {next}", replica.0)?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const REPLICA: ReplicaId = ReplicaId(3);

    fn path() -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cluster-epochs-{}-{number}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    #[test]
    fn a_replica_that_begins_anew_goes_on_counting() {
        let epochs = Epochs::open(path()).unwrap();
        let first = epochs.first_of(REPLICA, Epoch(7)).unwrap();
        (0..10).for_each(|count| epochs.begun(REPLICA, Epoch(first.0 + count)));
        assert_eq!(epochs.first_of(REPLICA, Epoch(7)).unwrap(), Epoch(first.0 + 10));
        assert_eq!(epochs.first_of(ReplicaId(4), Epoch(7)).unwrap(), Epoch(7));
        let given = Epoch(EPOCHS_OF_A_RUN);
        assert_eq!(
            epochs.first_of(REPLICA, given).unwrap(),
            given,
            "by the cluster, meanwhile"
        );
    }

    #[test]
    fn what_the_cluster_gives_is_taken_as_it_is() {
        let path = path();
        for run in 1..4 {
            let given = Epoch(run * EPOCHS_OF_A_RUN);
            let epochs = Epochs::open(path.clone()).unwrap();
            assert_eq!(epochs.first_of(REPLICA, given).unwrap(), given, "run {run}");
            let other = epochs.first_of(ReplicaId(4), Epoch(1)).unwrap();
            assert_eq!(
                other.0 % EPOCHS_OF_A_RUN,
                1,
                "replicas have nothing to do with each other"
            );
        }
    }

    #[test]
    fn no_epoch_comes_twice_over_runs_that_cannot_ask() {
        let (path, known) = (path(), Epoch(5 * EPOCHS_OF_A_RUN));
        let mut last = Epochs::open(path.clone())
            .unwrap()
            .first_of(REPLICA, known)
            .unwrap();
        for run in 0..3 {
            let epochs = Epochs::open(path.clone()).unwrap();
            epochs.begin_beyond(REPLICA, known);
            let first = epochs.first_of(REPLICA, known).unwrap();
            assert_eq!(first.0, last.0 + EPOCHS_OF_A_RUN, "run {run}");
            assert_eq!(
                epochs.first_of(REPLICA, known).unwrap(),
                first,
                "the same within a run"
            );
            last = first;
        }
        // The cluster has heard of one of them meanwhile.
        let told = Epoch(known.0 + EPOCHS_OF_A_RUN);
        let first = Epochs::open(path).unwrap().first_of(REPLICA, told).unwrap();
        assert_eq!(first.0, last.0 + EPOCHS_OF_A_RUN);
    }

    #[test]
    fn a_node_of_an_earlier_program_has_left_no_file() {
        let epochs = Epochs::open(path()).unwrap();
        epochs.begin_beyond(REPLICA, Epoch(EPOCHS_OF_A_RUN));
        let first = epochs.first_of(REPLICA, Epoch(EPOCHS_OF_A_RUN)).unwrap();
        assert_eq!(first, Epoch(2 * EPOCHS_OF_A_RUN));
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let path = path().join("no-such-folder/epochs");
        let epochs = Epochs::open(path.clone()).unwrap();
        let error = epochs.first_of(REPLICA, Epoch(1)).unwrap_err().to_string();
        assert!(
            error.starts_with(&path.display().to_string()) && error.contains("space"),
            "{error}"
        );
    }

    #[test]
    fn another_file_is_told_from_one_of_these() {
        let path = path();
        fs::write(&path, "3 1048576\nnonsense\n").unwrap();
        let error = Epochs::open(path).err().expect("it does not read");
        assert!(error.to_string().contains("nonsense"), "{error}");
    }

    #[test]
    fn a_file_that_has_lost_its_end_is_not_taken_for_an_earlier_one() {
        let path = path();
        for rest in ["", "3 1048", "3 1048576\n4 10"] {
            fs::write(&path, rest).unwrap();
            let error = Epochs::open(path.clone()).err().expect("it does not read");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{rest}: {error}");
        }
    }
}
