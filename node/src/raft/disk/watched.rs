use super::fault::Fault;
use super::sums::Sums;
use redb::StorageBackend;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file as redb sees it. It remembers the first fault of an operation, as redb's own errors may have lost it, keeps
/// changed pages from redb, and can be shut, after which nothing reaches the file. Clones are the same file.
#[derive(Clone, Debug)]
pub struct Watched {
    inner: Arc<dyn StorageBackend>,
    fault: Arc<Mutex<Option<Fault>>>,
    sums: Arc<Mutex<Sums>>,
    shut: Arc<AtomicBool>,
}

impl Watched {
    pub fn new(inner: Arc<dyn StorageBackend>) -> Watched {
        Watched {
            inner,
            fault: Arc::default(),
            sums: Arc::default(),
            shut: Arc::default(),
        }
    }

    pub fn take_fault(&self) -> Option<Fault> {
        locked(&self.fault).take()
    }

    pub fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    fn remember(&self, fault: Fault) {
        locked(&self.fault).get_or_insert(fault);
    }

    fn inner(&self) -> io::Result<&dyn StorageBackend> {
        if self.shut.load(Ordering::Acquire) {
            return Err(io::Error::other("the file has been shut"));
        }
        Ok(&*self.inner)
    }
}

/// What a panicking redb left is still whole: each lock is held for one call.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two of what cannot be cloned: one to remember, one for redb.
fn twin(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner()?
            .len()
            .inspect_err(|error| self.remember(Fault::Io(twin(error))))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner()?.read(offset, out).inspect_err(|error| {
            // Beyond the end of the file leads only a damaged pointer or a lost tail.
            let damaged = matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
            );
            if !damaged {
                self.remember(Fault::Io(twin(error)));
            }
        })?;
        locked(&self.sums)
            .read(offset, out)
            .inspect_err(|error| self.remember(Fault::corrupt(error.to_string())))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        locked(&self.sums).resized(bytes);
        self.inner()?
            .set_len(bytes)
            .inspect_err(|error| self.remember(Fault::of_write(twin(error))))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner()?
            .sync_data()
            .inspect_err(|error| self.remember(Fault::Io(twin(error))))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let written = self.inner()?.write(offset, data);
        let mut sums = locked(&self.sums);
        match written {
            Ok(()) => sums.written(offset, data),
            // A part of it may have arrived.
            Err(_) => sums.forget(offset, data.len() as u64),
        }
        written.inspect_err(|error| self.remember(Fault::of_write(twin(error))))
    }
}
