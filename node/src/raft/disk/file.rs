use redb::StorageBackend;
use rustix::fs::{Advice, FallocateFlags};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A real file, read and written by position.
#[derive(Debug)]
pub struct PlainFile(File);

impl PlainFile {
    /// Must not exist yet; readable by its owner only.
    pub fn create(path: &Path) -> io::Result<PlainFile> {
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .clone();
        options.open(path).map(PlainFile)
    }

    /// Must exist. Reads see what the disk holds, not what the page cache remembers of writes that failed.
    pub fn open(path: &Path) -> io::Result<PlainFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // Only what has been written can be dropped.
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(PlainFile(file))
    }
}

impl StorageBackend for PlainFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    /// Growing takes the space at once, so that a full disk is found before a step is half written.
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let before = self.len()?;
        if bytes <= before {
            return self.0.set_len(bytes);
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), before, bytes - before) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.0.set_len(bytes),
            taken => Ok(taken?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
