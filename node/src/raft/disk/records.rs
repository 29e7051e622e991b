use super::fault::Fault;
use super::record::{self, Key, Kind};
use super::state::{SINGLES, State, Write, place};
use super::watched::Watched;
use redb::{Database, Error, ReadableDatabase, ReadableTable, TableDefinition};
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");

/// The records in redb. After an error it is only good for `abandon`.
pub struct Records {
    file: Watched,
    /// `None` only while it is dropped.
    database: Option<Database>,
}

impl Records {
    /// In an empty file.
    pub fn create(file: Watched, cache_bytes: usize, state: &State) -> Result<(), Fault> {
        let records = Records::start(file, cache_bytes)?;
        records.apply(&[state.manifest()])
    }

    /// With every page and record verified.
    pub fn open(file: Watched, cache_bytes: usize) -> Result<(Records, State), Fault> {
        let records = Records::start(file, cache_bytes)?;
        match records.load() {
            Ok(state) => Ok((records, state)),
            Err(fault) => {
                records.abandon();
                Err(fault)
            }
        }
    }

    fn start(file: Watched, cache_bytes: usize) -> Result<Records, Fault> {
        let database = guarded(&file, || {
            let mut builder = Database::builder();
            builder
                .set_check_integrity_on_open(true)
                .set_cache_size(cache_bytes);
            Ok(builder.create_with_backend(file.clone())?)
        })?;
        Ok(Records {
            file,
            database: Some(database),
        })
    }

    /// Closes it without another byte reaching the file.
    pub fn abandon(self) {
        self.file.shut();
    }

    /// All or nothing, durable when it returns.
    pub fn apply(&self, writes: &[Write]) -> Result<(), Fault> {
        self.guarded(|database| {
            let transaction = database.begin_write()?;
            let mut table = transaction.open_table(RECORDS)?;
            for write in writes {
                match write {
                    Write::Put(key, sealed) => {
                        table.insert(key.number(), sealed.as_slice())?;
                    }
                    Write::Remove(kind, indices) => {
                        table.retain_in(record::numbers(*kind, indices), |_, _| false)?;
                    }
                }
            }
            drop(table);
            Ok(transaction.commit()?)
        })
    }

    /// The payloads of all these records; one that is missing or damaged is an error.
    pub fn read(&self, kind: Kind, indices: Range<u64>) -> Result<Vec<Vec<u8>>, Fault> {
        let numbers = record::numbers(kind, &indices);
        let mut payloads = Vec::new();
        self.guarded(|database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut expected = indices.clone();
            for item in table.range(numbers)? {
                let (number, sealed) = item?;
                let key = known(number.value())?;
                if Some(key.index) != expected.next() {
                    return Err(damage(format!("{kind:?} {} is missing", key.index)));
                }
                payloads.push(opened(key, sealed.value())?.to_vec());
            }
            match expected.next() {
                Some(index) => Err(damage(format!("{kind:?} {index} is missing"))),
                None => Ok(()),
            }
        })?;
        Ok(payloads)
    }

    /// Reads every record, and finds all that must be there and nothing else.
    fn load(&self) -> Result<State, Fault> {
        self.guarded(|database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut manifest = None;
            let mut singles = <[Option<Vec<u8>>; SINGLES.len()]>::default();
            let mut found = Vec::new();
            for item in table.iter()? {
                let (number, sealed) = item?;
                let key = known(number.value())?;
                let payload = opened(key, sealed.value())?;
                match key.kind {
                    Kind::Chunk | Kind::Entry => found.push(key),
                    Kind::Manifest => manifest = Some(payload.to_vec()),
                    Kind::Vote | Kind::Committed | Kind::Purged | Kind::Identity | Kind::Snapshot => {
                        singles[place(key.kind)] = Some(payload.to_vec());
                    }
                }
            }
            let manifest = manifest.ok_or_else(|| damage("the manifest is missing".to_owned()))?;
            let state = State::decode(&manifest, singles).map_err(damage)?;
            let chunks = (0..state.chunks()).map(|index| (Kind::Chunk, index));
            let due = chunks.chain(state.log.clone().map(|index| (Kind::Entry, index)));
            if !due.eq(found.iter().map(|key| (key.kind, key.index))) {
                return Err(damage(format!(
                    "entries {:?} and {} pieces of a snapshot are due, and others are there",
                    state.log,
                    state.chunks()
                )));
            }
            Ok(state)
        })
    }

    fn guarded<T>(&self, work: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Fault> {
        let database = self.database.as_ref().expect("it is there until it is dropped");
        guarded(&self.file, || work(database))
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // redb writes when it closes; what fails or panics then was acknowledged before.
        let closing = guarded(&self.file.clone(), || {
            drop(self.database.take());
            Ok(())
        });
        if let Err(fault) = closing {
            tracing::warn!(?fault, "the Raft log did not close cleanly");
        }
    }
}

/// The file's own fault if it had one; else an error or a panic of redb means damage.
fn guarded<T>(file: &Watched, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Fault> {
    // Of a write that redb could do without.
    let _ = file.take_fault();
    let what = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_text(&*panic),
    };
    Err(file.take_fault().unwrap_or(Fault::Corrupt(what)))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unreadable pages").to_owned()
}

fn known(number: u64) -> Result<Key, Error> {
    Key::from_number(number).ok_or_else(|| damage(format!("a record of no known kind, {number:#x}")))
}

fn opened(key: Key, sealed: &[u8]) -> Result<&[u8], Error> {
    record::open(key, sealed).ok_or_else(|| damage(format!("the checksum of {:?} {}", key.kind, key.index)))
}

fn damage(what: String) -> Error {
    Error::Corrupted(what)
}
