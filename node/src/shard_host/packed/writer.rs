use super::index::{ALIGNMENT, PackedIndex, PackedMatrix};
use crate::os;
use proto::wire::{self, Kind};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

/// A packed file in the making. Dropped before its end, it leaves nothing.
pub struct PackedWriter {
    part: Part,
    file: BufWriter<File>,
    path: PathBuf,
    written: u64,
    index: PackedIndex,
}

/// The file under the name that it has until it is whole.
struct Part(PathBuf);

impl Part {
    fn rename(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next writer empties it.
        let _ = fs::remove_file(&self.0);
    }
}

impl PackedWriter {
    /// Makes the folder where it is missing. [`io::ErrorKind::WouldBlock`] where somebody else is writing this very file.
    pub fn create(path: &Path, packing: u32) -> io::Result<PackedWriter> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let part = path.with_extension("part");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        // What a crash has left of an earlier one.
        file.set_len(0)?;
        Ok(PackedWriter {
            part: Part(part),
            file: BufWriter::with_capacity(1 << 20, file),
            path: path.to_owned(),
            written: 0,
            index: PackedIndex {
                packing,
                matrices: Vec::new(),
            },
        })
    }

    pub fn write(&mut self, name: &str, outputs: &Range<usize>, packed: &[u8]) -> io::Result<()> {
        let offset = self.written.next_multiple_of(ALIGNMENT);
        let padding = (offset - self.written) as usize;
        self.file.write_all(&[0; ALIGNMENT as usize][..padding])?;
        self.file.write_all(packed)?;
        self.written = offset + packed.len() as u64;
        self.index.matrices.push(PackedMatrix {
            name: name.to_owned(),
            first_output: outputs.start as u64,
            end_output: outputs.end as u64,
            offset,
            bytes: packed.len() as u64,
            checksum: crc32fast::hash(packed),
        });
        Ok(())
    }

    /// In a thread of its own: a disk may take its time.
    pub fn finish(self) {
        let started = thread::Builder::new().name("packed".to_owned()).spawn(move || {
            os::priority::below_control_plane();
            let path = self.path.clone();
            if let Err(error) = self.settle() {
                warn(&path, &error);
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread to keep packed weights; the next start packs again");
        }
    }

    /// Nobody finds the file before all of it is on the disk.
    pub(super) fn settle(mut self) -> io::Result<()> {
        let index = wire::frame(Kind::PackedIndex, 0, &self.index);
        self.file.write_all(&index)?;
        self.file.write_all(&(index.len() as u64).to_le_bytes())?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        self.part.rename(&self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

pub fn warn(path: &Path, error: &io::Error) {
    tracing::warn!(path = %path.display(), %error, "packed weights cannot be kept; the next start packs again");
}
