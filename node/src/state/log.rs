//! The command log: one frame of the wire format for each command, synced one by one.
//!
//! A crash in the middle of an append leaves a torn last frame: it was never acknowledged, so it is cut off. Anything
//! else that does not read as it was written means the disk has lied, and a node that cannot trust its memory must
//! not serve. Entries are synced one by one, so at most one can be torn: an entry that seems cut short and has another
//! one behind it is damaged, and so is a log that is cut and goes on.

use proto::cluster::ClusterCommand;
use proto::wire::{self, HEADER_BYTES, Header, Kind, WireError};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

#[derive(thiserror::Error, Debug)]
pub enum LogError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "the log {path} is damaged at byte {offset} ({error}): restore it from a copy, or move it away to begin anew \
         (API keys will then be new)"
    )]
    Corrupt {
        path: PathBuf,
        offset: u64,
        error: WireError,
    },
}

pub struct Log {
    path: PathBuf,
    file: File,
    /// Where the last whole frame ends.
    end: u64,
}

impl Log {
    /// Replays every command in order through `apply`.
    pub fn open(path: &Path, mut apply: impl FnMut(ClusterCommand)) -> Result<Log, LogError> {
        let io_error = |error| LogError::Io {
            path: path.to_owned(),
            error,
        };
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .clone();
        let mut file = options.open(path).map_err(io_error)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error)?;
        let end = replay(&bytes, &mut apply).map_err(|(offset, error)| LogError::Corrupt {
            path: path.to_owned(),
            offset,
            error,
        })?;
        if end < bytes.len() as u64 {
            tracing::warn!(log = %path.display(), cut_bytes = bytes.len() as u64 - end, "cut off a torn last entry");
            file.set_len(end)
                .and_then(|()| file.sync_all())
                .map_err(io_error)?;
        }
        Ok(Log {
            path: path.to_owned(),
            file,
            end,
        })
    }

    /// Durable when it returns. After an error the log ends where it ended before.
    pub fn append(&mut self, command: &ClusterCommand) -> Result<(), LogError> {
        let frame = wire::frame(Kind::LogEntry, 0, command);
        let written = self.write(&frame);
        if written.is_err() {
            let _ = self.file.set_len(self.end);
        }
        written.map_err(|error| LogError::Io {
            path: self.path.clone(),
            error,
        })?;
        self.end += frame.len() as u64;
        Ok(())
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(frame)?;
        self.file.sync_all()
    }
}

/// Where the last whole frame ends; an error says at which byte.
fn replay(bytes: &[u8], apply: &mut impl FnMut(ClusterCommand)) -> Result<u64, (u64, WireError)> {
    let mut rest = bytes;
    loop {
        let offset = (bytes.len() - rest.len()) as u64;
        match first_entry(rest).map_err(|error| (offset, error))? {
            Some((command, after)) => {
                apply(command);
                rest = after;
            }
            None if hides_an_entry(rest) => return Err((offset, WireError::BadChecksum)),
            None => return Ok(offset),
        }
    }
}

/// Is there a whole entry somewhere behind the first byte?
fn hides_an_entry(bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|place| matches!(first_entry(&bytes[place..]), Ok(Some(_))))
}

/// `None`: nothing left, or a frame that was cut short, which a file system may also leave as zeros.
fn first_entry(bytes: &[u8]) -> Result<Option<(ClusterCommand, &[u8])>, WireError> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let Some((header_bytes, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = Header::parse(header_bytes, Kind::LogEntry)?;
    let Some((payload, after)) = payload.split_at_checked(header.length) else {
        return Ok(None);
    };
    Ok(Some((header.open(header_bytes, payload)?, after)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::TenantId;
    use proto::cluster::TenantRecord;

    fn tenant(number: u32) -> ClusterCommand {
        ClusterCommand::AddTenant(TenantRecord {
            id: TenantId(number),
            name: format!("tenant {number}"),
            salt: [7; 32],
        })
    }

    fn replayed(path: &Path) -> Result<Vec<ClusterCommand>, LogError> {
        let mut commands = Vec::new();
        Log::open(path, |command| commands.push(command)).map(|_| commands)
    }

    fn written(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cluster-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut log = Log::open(&path, |_| panic!("a new log is empty")).unwrap();
        (1..=3).for_each(|number| log.append(&tenant(number)).unwrap());
        path
    }

    #[test]
    fn what_was_appended_is_replayed_in_order() {
        let path = written("order");
        assert_eq!(replayed(&path).unwrap(), vec![tenant(1), tenant(2), tenant(3)]);
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte_and_the_log_goes_on() {
        let path = written("torn");
        let whole = std::fs::read(&path).unwrap();
        let frame_bytes = whole.len() / 3;
        for kept in 2 * frame_bytes..whole.len() {
            std::fs::write(&path, &whole[..kept]).unwrap();
            assert_eq!(
                replayed(&path).unwrap(),
                vec![tenant(1), tenant(2)],
                "{kept} bytes kept"
            );
            Log::open(&path, |_| ()).unwrap().append(&tenant(9)).unwrap();
            assert_eq!(replayed(&path).unwrap(), vec![tenant(1), tenant(2), tenant(9)]);
        }
    }

    #[test]
    fn a_tail_of_zeros_is_a_torn_tail() {
        let path = written("zeros");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend([0; 100]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(replayed(&path).unwrap().len(), 3);
    }

    #[test]
    fn a_flipped_bit_in_any_but_the_last_entry_is_refused_with_its_place() {
        let path = written("corrupt");
        let whole = std::fs::read(&path).unwrap();
        let frame_bytes = whole.len() / 3;
        for place in 0..2 * frame_bytes {
            let mut bad = whole.clone();
            bad[place] ^= 1 << (place % 8);
            std::fs::write(&path, &bad).unwrap();
            let error = replayed(&path).expect_err("damage is found");
            let expected = (place / frame_bytes * frame_bytes) as u64;
            assert!(
                matches!(error, LogError::Corrupt { offset, .. } if offset == expected),
                "{place}: {error}"
            );
        }
    }
}
