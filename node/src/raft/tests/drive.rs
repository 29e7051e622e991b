use crate::raft::disk::tests::dice::Dice;
use crate::raft::disk::tests::machine::{Crash, Event, Images, LOG, Loss, WITNESS, applied};
use crate::raft::disk::{Disk, DiskError};
use redb::StorageBackend;
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fmt, io};
use tokio::sync::watch;

/// The disk of one run of a node. Whoever holds it after its power was cut can do nothing with it any more; what a
/// restarted node finds is on the drive that [`Drive::after_cut`] gives. Clones are the same drive.
#[derive(Clone)]
pub struct Drive(Arc<Mutex<Inner>>);

struct Inner {
    /// What is read.
    live: Images,
    /// What a cut that loses all it can leaves.
    synced: Images,
    /// Written since the last sync of their file.
    pending: Vec<Event>,
    is_full: bool,
    cut: Option<PlannedCut>,
    sync_fails: bool,
    dice: Dice,
    is_off: watch::Sender<bool>,
}

struct PlannedCut {
    syncs_left: u64,
    loss: Loss,
}

impl Drive {
    /// With an empty store.
    pub fn new(seed: u64) -> Drive {
        let drive = Drive::of(Images::default(), seed);
        Disk::create_on(drive.file(LOG), drive.file(WITNESS)).unwrap();
        drive
    }

    fn of(images: Images, seed: u64) -> Drive {
        Drive(Arc::new(Mutex::new(Inner {
            live: images.clone(),
            synced: images,
            pending: Vec::new(),
            is_full: false,
            cut: None,
            sync_fails: false,
            dice: Dice::new(seed),
            is_off: watch::Sender::new(false),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn file(&self, file: usize) -> DriveFile {
        DriveFile {
            drive: self.clone(),
            file,
        }
    }

    pub fn open(&self) -> Result<Disk, DiskError> {
        Disk::open_on(self.file(LOG), self.file(WITNESS))
    }

    /// From now on nothing happens on it.
    pub fn cut_power(&self, loss: Loss) {
        self.inner().cut_power(loss);
    }

    /// In the middle of a step: when so many more syncs have been asked for, the last of them unanswered.
    pub fn cut_power_after(&self, syncs: u64, loss: Loss) {
        let syncs_left = syncs;
        self.inner().cut = Some(PlannedCut { syncs_left, loss });
    }

    pub fn is_off(&self) -> bool {
        *self.inner().is_off.borrow()
    }

    pub fn is(&self, other: &Drive) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub async fn turned_off(&self) {
        let mut is_off = self.inner().is_off.subscribe();
        is_off
            .wait_for(|is_off| *is_off)
            .await
            .expect("the sender lives in self");
    }

    /// What a node that starts again finds.
    pub fn after_cut(&self) -> Drive {
        let mut inner = self.inner();
        assert!(*inner.is_off.borrow(), "cut its power first");
        let seed = inner.dice.roll();
        Drive::of(inner.live.clone(), seed)
    }

    /// To look at, beside the node that uses it.
    pub fn copy(&self) -> Drive {
        Drive::of(self.inner().live.clone(), 0)
    }

    pub fn fill(&self) {
        self.inner().is_full = true;
    }

    pub fn free(&self) {
        self.inner().is_full = false;
    }

    /// Once; what it should have made durable is gone for whoever opens the files anew, as with Linux.
    pub fn fail_next_sync(&self) {
        self.inner().sync_fails = true;
    }

    /// What was planned does not happen.
    pub fn forget_plans(&self) {
        let mut inner = self.inner();
        inner.cut = None;
        inner.sync_fails = false;
    }

    /// One bit, somewhere where it is noticed: much of the file is not in use.
    pub fn flip_a_bit(&self) {
        let bytes = self.inner().live[LOG].len() as u64;
        loop {
            let byte = self.inner().dice.below(bytes) as usize;
            let copy = self.copy();
            copy.flip(byte);
            if copy.open().is_err() {
                self.flip(byte);
                return;
            }
        }
    }

    fn flip(&self, byte: usize) {
        let mut inner = self.inner();
        inner.live[LOG][byte] ^= 1;
        inner.synced[LOG][byte] ^= 1;
    }
}

impl Inner {
    fn cut_power(&mut self, loss: Loss) {
        self.live = self.after_loss(loss);
        self.pending.clear();
        self.is_off.send_replace(true);
    }

    fn after_loss(&mut self, loss: Loss) -> Images {
        let crash = Crash {
            synced: &self.synced,
            pending: &self.pending,
            acknowledged: 0,
            number: 0,
        };
        crash.image(loss, &mut self.dice)
    }

    fn powered(&self) -> io::Result<()> {
        match *self.is_off.borrow() {
            true => Err(io::Error::other("the power is off")),
            false => Ok(()),
        }
    }

    fn space(&self) -> io::Result<()> {
        match self.is_full {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn sync(&mut self, file: usize) -> io::Result<()> {
        self.powered()?;
        match &mut self.cut {
            Some(PlannedCut { syncs_left: 0, loss }) => {
                let loss = *loss;
                self.cut_power(loss);
                return self.powered();
            }
            Some(planned) => planned.syncs_left -= 1,
            None => {}
        }
        if std::mem::take(&mut self.sync_fails) {
            self.live = self.after_loss(Loss::All);
            self.pending.clear();
            return Err(io::Error::other("the disk did not answer"));
        }
        let synced = &mut self.synced;
        self.pending.retain(|event| !applied(synced, file, event));
        Ok(())
    }
}

impl fmt::Debug for Drive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Drive").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct DriveFile {
    drive: Drive,
    file: usize,
}

impl StorageBackend for DriveFile {
    fn len(&self) -> io::Result<u64> {
        let inner = self.drive.inner();
        inner.powered()?;
        Ok(inner.live[self.file].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.drive.inner();
        inner.powered()?;
        let rest = inner.live[self.file].get(offset as usize..).unwrap_or(&[]);
        let part = rest.get(..out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let (file, bytes) = (self.file, bytes as usize);
        let mut inner = self.drive.inner();
        inner.powered()?;
        inner.space()?;
        inner.live[file].resize(bytes, 0);
        inner.pending.push(Event::SetLen { file, bytes });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.drive.inner().sync(self.file)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (file, offset) = (self.file, offset as usize);
        let mut inner = self.drive.inner();
        inner.powered()?;
        inner.space()?;
        let end = offset + data.len();
        if inner.live[file].len() < end {
            inner.live[file].resize(end, 0);
        }
        inner.live[file][offset..end].copy_from_slice(data);
        let bytes = data.to_vec();
        inner.pending.push(Event::Write { file, offset, bytes });
        Ok(())
    }
}

/// Any of the ways in which a power cut treats what was not synced.
pub fn some_loss(dice: &mut Dice) -> Loss {
    let block_bytes = [512, 4096][dice.below(2) as usize];
    match dice.below(4) {
        0 => Loss::All,
        1 => Loss::None,
        2 => Loss::Torn { block_bytes },
        _ => Loss::Subset { block_bytes },
    }
}
