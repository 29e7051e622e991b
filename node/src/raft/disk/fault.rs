use super::error::DiskError;
use std::io;

/// What went wrong below, not yet told where.
#[derive(Debug)]
pub enum Fault {
    Full(io::Error),
    Io(io::Error),
    Corrupt(String),
}

impl Fault {
    /// Of a write, or of making room. A sync that finds no space is no such thing: what it could not write may be gone.
    pub fn of_write(error: io::Error) -> Fault {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        if full {
            Fault::Full(error)
        } else {
            Fault::Io(error)
        }
    }

    pub fn corrupt(what: impl Into<String>) -> Fault {
        Fault::Corrupt(what.into())
    }

    pub fn at(self, place: &str) -> DiskError {
        let place = place.to_owned();
        match self {
            Fault::Full(error) => DiskError::Full { place, error },
            Fault::Io(error) => DiskError::Io { place, error },
            Fault::Corrupt(what) => DiskError::Corrupt { place, what },
        }
    }
}
