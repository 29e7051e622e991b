//! Shared memory: a request area and an answer area in one mapped file, and a counter for each. Both sides spin while a
//! block of rounds runs, and sleep between.
//!
//! Twice: with an echo, as the others, which is three copies; and one way with a signal back, as ranks of one host do:
//! what has just been computed lies there already, and the other copies it from there.

use crate::{SIZES, Way};
use bytes::Bytes;
use memmap2::MmapMut;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const AREA_BYTES: usize = SIZES[SIZES.len() - 1];
const HEAD_BYTES: usize = 4096;
/// Each on a cache line of its own.
const ASKED: usize = 0;
const LENGTH: usize = 128;
const ANSWERED: usize = 256;
const BACK: usize = 384;
/// The side that echoes sleeps when nothing has come for this long.
const SPIN_MAX: Duration = Duration::from_millis(5);

pub struct Shared {
    map: MmapMut,
    rounds: u64,
    back: Back,
}

/// What comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Back {
    Signal = 0,
    Echo = 1,
}

impl Shared {
    fn open(folder: &Path, back: Back) -> Shared {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("ring"))
            .expect("a file in shared memory");
        file.set_len((HEAD_BYTES + 2 * AREA_BYTES) as u64)
            .expect("room in shared memory");
        // SAFETY: only this program maps the file, and neither side shortens it.
        let map = unsafe { MmapMut::map_mut(&file).expect("a mapping") };
        Shared { map, rounds: 0, back }
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= HEAD_BYTES && offset.is_multiple_of(8));
        // SAFETY: aligned and inside the mapping, which lives as long as `self`; both sides access it as an atomic.
        unsafe { AtomicU64::from_ptr(self.map.as_ptr().add(offset).cast_mut().cast()) }
    }

    fn request(&mut self, length: usize) -> &mut [u8] {
        &mut self.map[HEAD_BYTES..HEAD_BYTES + length]
    }

    fn answer(&mut self, length: usize) -> &mut [u8] {
        &mut self.map[HEAD_BYTES + AREA_BYTES..HEAD_BYTES + AREA_BYTES + length]
    }
}

/// Echoes, on a thread of its own, until the process ends.
pub fn listen(folder: &Path) {
    let mut shared = Shared::open(folder, Back::Echo);
    let mut own = vec![0; AREA_BYTES];
    std::thread::spawn(move || {
        let mut last = Instant::now();
        loop {
            let asked = shared.counter(ASKED).load(Ordering::Acquire);
            if asked == shared.rounds {
                match last.elapsed() < SPIN_MAX {
                    true => std::hint::spin_loop(),
                    false => std::thread::sleep(Duration::from_micros(500)),
                }
                continue;
            }
            let length = shared.counter(LENGTH).load(Ordering::Relaxed) as usize;
            let back = shared.counter(BACK).load(Ordering::Relaxed);
            let (request, answer) = shared.map[HEAD_BYTES..].split_at_mut(AREA_BYTES);
            match back == Back::Echo as u64 {
                true => answer[..length].copy_from_slice(&request[..length]),
                false => own[..length].copy_from_slice(&request[..length]),
            }
            std::hint::black_box(&mut own);
            shared.rounds = asked;
            shared.counter(ANSWERED).store(asked, Ordering::Release);
            last = Instant::now();
        }
    });
}

pub fn connect(folder: &Path, back: Back) -> Shared {
    Shared::open(folder, back)
}

impl Way for Shared {
    fn name(&self) -> &'static str {
        match self.back {
            Back::Signal => "shared memory, one way",
            Back::Echo => "shared memory",
        }
    }

    fn prepare(&mut self, bytes: &Bytes) {
        self.request(bytes.len()).copy_from_slice(bytes);
    }

    fn echoes(&self) -> bool {
        self.back == Back::Echo
    }

    async fn round(&mut self, bytes: &Bytes, echo: &mut [u8]) {
        // Both ways of this side count on.
        self.rounds = self.counter(ANSWERED).load(Ordering::Acquire) + 1;
        if self.back == Back::Echo {
            self.request(bytes.len()).copy_from_slice(bytes);
        }
        self.counter(LENGTH).store(bytes.len() as u64, Ordering::Relaxed);
        self.counter(BACK).store(self.back as u64, Ordering::Relaxed);
        self.counter(ASKED).store(self.rounds, Ordering::Release);
        while self.counter(ANSWERED).load(Ordering::Acquire) != self.rounds {
            std::hint::spin_loop();
        }
        if self.back == Back::Echo {
            echo.copy_from_slice(self.answer(bytes.len()));
        }
    }
}
