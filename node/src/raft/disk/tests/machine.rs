use super::dice::Dice;
use redb::StorageBackend;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// The contents of the two files: log and witness.
pub type Images = [Vec<u8>; 2];
pub const LOG: usize = 0;
pub const WITNESS: usize = 1;
/// How closely it is watched what is read.
const SEEN_BYTES: usize = 64;

/// What happened to the files, in order.
#[derive(Clone, Debug)]
pub enum Event {
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLen {
        file: usize,
        bytes: usize,
    },
    Sync {
        file: usize,
    },
    /// A step was acknowledged.
    Acknowledged,
}

/// A pretend machine: two files with what was written and not yet synced, and faults to order. Clones are the same.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    live: Images,
    journal: Vec<Event>,
    /// Writes until the disk is full.
    writes_left: Option<u64>,
    /// Syncs until one fails. Like Linux, it fails once.
    syncs_left: Option<u64>,
    syncs: u64,
    /// The blocks that were read, as (file, number), while somebody wants to know.
    seen: Option<BTreeSet<(usize, usize)>>,
}

impl Machine {
    pub fn new(live: Images) -> Machine {
        Machine(Arc::new(Mutex::new(Inner {
            live,
            ..Inner::default()
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn log(&self) -> FakeFile {
        FakeFile {
            machine: self.clone(),
            file: LOG,
        }
    }

    pub fn witness(&self) -> FakeFile {
        FakeFile {
            machine: self.clone(),
            file: WITNESS,
        }
    }

    pub fn images(&self) -> Images {
        self.inner().live.clone()
    }

    pub fn take_journal(&self) -> Vec<Event> {
        std::mem::take(&mut self.inner().journal)
    }

    pub fn acknowledge(&self) {
        self.inner().journal.push(Event::Acknowledged);
    }

    pub fn flip(&self, file: usize, byte: usize, bit: u32) {
        self.inner().live[file][byte] ^= 1 << bit;
    }

    pub fn watch_reads(&self) {
        self.inner().seen = Some(BTreeSet::new());
    }

    /// Has this byte, or one beside it, been read?
    pub fn has_read(&self, file: usize, byte: usize) -> bool {
        let inner = self.inner();
        let seen = inner.seen.as_ref().expect("reads are watched");
        seen.contains(&(file, byte / SEEN_BYTES))
    }

    pub fn cut(&self, file: usize, bytes: usize) {
        self.inner().live[file].truncate(bytes);
    }

    pub fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// The disk is full after so many more writes; `None`: there is space.
    pub fn fill_after(&self, writes: Option<u64>) {
        self.inner().writes_left = writes;
    }

    pub fn fail_a_sync_after(&self, syncs: u64) {
        self.inner().syncs_left = Some(syncs);
    }
}

impl Inner {
    /// Any write may need space: there are file systems that never overwrite.
    fn take_space(&mut self) -> io::Result<()> {
        match &mut self.writes_left {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct FakeFile {
    machine: Machine,
    file: usize,
}

impl StorageBackend for FakeFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.machine.inner().live[self.file].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut inner = self.machine.inner();
        if let Some(seen) = &mut inner.seen {
            let blocks = offset as usize / SEEN_BYTES..(offset as usize + out.len()).div_ceil(SEEN_BYTES);
            seen.extend(blocks.map(|block| (self.file, block)));
        }
        let rest = inner.live[self.file].get(offset as usize..).unwrap_or(&[]);
        let part = rest.get(..out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let (file, bytes) = (self.file, bytes as usize);
        let mut inner = self.machine.inner();
        inner.take_space()?;
        inner.live[file].resize(bytes, 0);
        inner.journal.push(Event::SetLen { file, bytes });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.machine.inner();
        inner.syncs += 1;
        match inner.syncs_left {
            Some(0) => {
                inner.syncs_left = None;
                return Err(io::Error::other("the disk did not answer"));
            }
            Some(left) => inner.syncs_left = Some(left - 1),
            None => {}
        }
        inner.journal.push(Event::Sync { file: self.file });
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (file, offset) = (self.file, offset as usize);
        let mut inner = self.machine.inner();
        let space = inner.take_space();
        // On a full disk a part of it arrives.
        let written = if space.is_ok() { data.len() } else { data.len() / 2 };
        let bytes = data[..written].to_vec();
        let end = offset + written;
        if inner.live[file].len() < end {
            inner.live[file].resize(end, 0);
        }
        inner.live[file][offset..end].copy_from_slice(&bytes);
        inner.journal.push(Event::Write { file, offset, bytes });
        space
    }
}

/// What becomes of writes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// None arrived.
    All,
    /// All arrived: only the process died.
    None,
    /// Of each write a beginning arrived, in whole blocks.
    Torn { block_bytes: usize },
    /// Any of the blocks arrived.
    Subset { block_bytes: usize },
}

/// All of them, with blocks of both usual sizes.
pub const LOSSES: [Loss; 6] = [
    Loss::All,
    Loss::None,
    Loss::Torn { block_bytes: 512 },
    Loss::Torn { block_bytes: 4096 },
    Loss::Subset { block_bytes: 512 },
    Loss::Subset { block_bytes: 4096 },
];

/// A machine at the moment when a sync had been asked for and not answered.
pub struct Crash<'a> {
    pub synced: &'a Images,
    pub pending: &'a [Event],
    /// How many steps had been acknowledged.
    pub acknowledged: usize,
    /// The number of the sync.
    pub number: usize,
}

impl Crash<'_> {
    pub fn image(&self, loss: Loss, dice: &mut Dice) -> Images {
        let mut images = self.synced.clone();
        for event in self.pending {
            match event {
                Event::SetLen { file, bytes } => {
                    if loss == Loss::None || loss != Loss::All && dice.below(2) == 0 {
                        images[*file].resize(*bytes, 0);
                    }
                }
                Event::Write { file, offset, bytes } => {
                    keep(&mut images[*file], *offset, bytes, loss, dice);
                }
                Event::Sync { .. } | Event::Acknowledged => {}
            }
        }
        images
    }
}

fn keep(image: &mut [u8], offset: usize, bytes: &[u8], loss: Loss, dice: &mut Dice) {
    let block_bytes = match loss {
        Loss::All => return,
        Loss::None => usize::MAX,
        Loss::Torn { block_bytes } | Loss::Subset { block_bytes } => block_bytes,
    };
    let blocks = (offset + bytes.len()).div_ceil(block_bytes) - offset / block_bytes;
    let kept = dice.below(blocks as u64 + 1) as usize;
    for block in 0..blocks {
        let arrived = match loss {
            Loss::All => false,
            Loss::None => true,
            Loss::Torn { .. } => block < kept,
            Loss::Subset { .. } => dice.below(2) == 0,
        };
        // Blocks are those of the disk, not of the write.
        let block_start = (offset / block_bytes + block).saturating_mul(block_bytes);
        let start = block_start.max(offset);
        let end = block_start
            .saturating_add(block_bytes)
            .min(offset + bytes.len())
            // Data behind the end of a file that did not grow is not seen.
            .min(image.len());
        if arrived && start < end {
            image[start..end].copy_from_slice(&bytes[start - offset..end - offset]);
        }
    }
}

/// Calls `visit` for every sync of the journal, which began at `start`, a synced state.
pub fn each_crash(start: &Images, journal: &[Event], mut visit: impl FnMut(Crash)) {
    let mut synced = start.clone();
    let (mut pending, mut acknowledged, mut number) = (Vec::<Event>::new(), 0, 0);
    for event in journal {
        match event {
            Event::Write { .. } | Event::SetLen { .. } => pending.push(event.clone()),
            Event::Acknowledged => acknowledged += 1,
            Event::Sync { file } => {
                visit(Crash {
                    synced: &synced,
                    pending: &pending,
                    acknowledged,
                    number,
                });
                number += 1;
                pending.retain(|event| !applied(&mut synced, *file, event));
            }
        }
    }
}

/// Applies a write to this file; false: it is to another one.
pub fn applied(images: &mut Images, synced_file: usize, event: &Event) -> bool {
    match event {
        Event::Write { file, offset, bytes } if *file == synced_file => {
            let end = offset + bytes.len();
            if images[*file].len() < end {
                images[*file].resize(end, 0);
            }
            images[*file][*offset..end].copy_from_slice(bytes);
            true
        }
        Event::SetLen { file, bytes } if *file == synced_file => {
            images[*file].resize(*bytes, 0);
            true
        }
        Event::Write { .. } | Event::SetLen { .. } | Event::Sync { .. } | Event::Acknowledged => false,
    }
}
