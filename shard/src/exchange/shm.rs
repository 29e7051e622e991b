use super::{Exchange, Lost, place, rows_in, rows_of};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Ranks that are threads of one process: each shows where its part lies, and all copy from there.
///
/// Dropping one, also by a panic, tells the others: they get [`Lost`] instead of waiting for ever.
pub struct Shm {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    parts: Vec<PublishedPart>,
    barrier: Barrier,
}

/// Where a rank's part lies. Valid between the two barriers of one gather.
#[derive(Default)]
struct PublishedPart {
    pointer: AtomicPtr<f32>,
    length: AtomicUsize,
}

impl Shm {
    /// One for each rank, to be handed to the ranks' threads.
    ///
    /// # Panics
    /// When `ranks` is 0.
    pub fn ring(ranks: usize) -> Vec<Shm> {
        assert!(ranks > 0, "a replica has at least one rank");
        let parts = (0..ranks).map(|_| PublishedPart::default()).collect();
        let shared = Arc::new(Shared {
            parts,
            barrier: Barrier::new(ranks),
        });
        (0..ranks)
            .map(|rank| Shm {
                rank,
                shared: shared.clone(),
            })
            .collect()
    }
}

impl Exchange for Shm {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.shared.parts.len()
    }

    fn all_gather_columns(
        &mut self,
        part: &[f32],
        columns: &[Range<usize>],
        full: &mut [f32],
    ) -> Result<(), Lost> {
        let rows = rows_of(self.rank, part, columns, full);
        self.meet(part, columns, rows, full)
    }

    fn gather_columns(
        &mut self,
        part: &[f32],
        columns: &[Range<usize>],
        full: &mut [f32],
    ) -> Result<(), Lost> {
        match self.rank {
            0 => self.all_gather_columns(part, columns, full),
            rank => self.meet(part, columns, rows_in(part, &columns[rank]), &mut []),
        }
    }
}

impl Shm {
    /// Shows `part` to all ranks and copies all of theirs to `full`, where that has rows.
    fn meet(
        &mut self,
        part: &[f32],
        columns: &[Range<usize>],
        rows: usize,
        full: &mut [f32],
    ) -> Result<(), Lost> {
        assert_eq!(columns.len(), self.ranks(), "a range of columns for each rank");
        self.shared.parts[self.rank].publish(part);
        self.shared.barrier.wait()?;
        for (published, columns) in self.shared.parts.iter().zip(columns) {
            // SAFETY: all ranks have published and are between the two barriers (see `PublishedPart::read`).
            let part = unsafe { published.read() };
            // A rank that came with another number of rows would be a bug; panicking here would free our own part
            // while others still copy it, so nothing is copied and the assertion waits until all have met again.
            if !full.is_empty() && part.len() == rows * columns.len() {
                place(part, columns, rows, full);
            }
        }
        let lengths_fit = self.lengths_fit(rows, columns);
        self.shared.barrier.wait()?;
        assert!(lengths_fit, "ranks came with different numbers of rows");
        Ok(())
    }

    fn lengths_fit(&self, rows: usize, columns: &[Range<usize>]) -> bool {
        let parts = self.shared.parts.iter();
        parts
            .zip(columns)
            .all(|(part, columns)| part.length.load(Ordering::Acquire) == rows * columns.len())
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        self.shared.barrier.poison();
    }
}

impl PublishedPart {
    fn publish(&self, part: &[f32]) {
        self.pointer.store(part.as_ptr().cast_mut(), Ordering::Release);
        self.length.store(part.len(), Ordering::Release);
    }

    /// # Safety
    /// Only between the two barriers of a gather, for which every rank has published. The publisher borrows its part
    /// until it has passed the second barrier, which it cannot before the reader has reached it: a rank poisons the
    /// barrier only outside of a gather, when it is dropped, and until then the second barrier needs every rank.
    unsafe fn read(&self) -> &[f32] {
        let length = self.length.load(Ordering::Acquire);
        // SAFETY: pointer and length came from one slice, alive and unchanged by the contract above.
        unsafe { std::slice::from_raw_parts(self.pointer.load(Ordering::Acquire), length) }
    }
}

/// Spins for a moment, because ranks arrive together, then yields, because they may share a core.
struct Barrier {
    ranks: usize,
    arrived: AtomicUsize,
    /// Counts meetings; whoever waits sees it change.
    meeting: AtomicUsize,
    poisoned: AtomicBool,
}

const SPINS: u32 = 1_000;

impl Barrier {
    fn new(ranks: usize) -> Self {
        Barrier {
            ranks,
            arrived: AtomicUsize::new(0),
            meeting: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
        }
    }

    fn wait(&self) -> Result<(), Lost> {
        let meeting = self.meeting.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.ranks {
            self.arrived.store(0, Ordering::Relaxed);
            self.meeting.store(meeting.wrapping_add(1), Ordering::Release);
            return Ok(());
        }
        self.wait_for_others(meeting)
    }

    /// A meeting that has taken place counts, even if a rank died right after it.
    fn wait_for_others(&self, meeting: usize) -> Result<(), Lost> {
        let mut spins = 0;
        while self.meeting.load(Ordering::Acquire) == meeting {
            if self.poisoned.load(Ordering::Acquire) {
                let met = self.meeting.load(Ordering::Acquire) != meeting;
                return if met { Ok(()) } else { Err(Lost) };
            }
            spins += 1;
            match spins < SPINS {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
        Ok(())
    }

    fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::AssertUnwindSafe;

    const COLUMNS: [Range<usize>; 3] = [0..2, 2..3, 3..7];

    fn gather(shm: &mut Shm, rows: usize, offset: f32) -> Result<Vec<f32>, Lost> {
        let columns = COLUMNS[shm.rank()].clone();
        let part: Vec<f32> = (0..rows)
            .flat_map(|row| {
                columns
                    .clone()
                    .map(move |column| (row * 7 + column) as f32 + offset)
            })
            .collect();
        let mut full = vec![f32::NAN; rows * 7];
        shm.all_gather_columns(&part, &COLUMNS, &mut full)?;
        Ok(full)
    }

    #[test]
    fn uneven_columns_come_together_on_every_rank_many_times() {
        let threads: Vec<_> = Shm::ring(3)
            .into_iter()
            .map(|mut shm| {
                std::thread::spawn(move || {
                    for round in 0..200 {
                        let rows = round % 4;
                        let expected: Vec<f32> = (0..rows * 7).map(|n| n as f32 + round as f32).collect();
                        assert_eq!(gather(&mut shm, rows, round as f32), Ok(expected));
                    }
                    shm
                })
            })
            .collect();
        let shms: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(shms.len(), 3);
    }

    #[test]
    fn the_first_rank_alone_gets_columns_that_are_gathered_for_it() {
        let threads = Shm::ring(3).into_iter().map(|mut shm| {
            std::thread::spawn(move || {
                let columns = COLUMNS[shm.rank()].clone();
                let part: Vec<f32> = [0, 7]
                    .iter()
                    .flat_map(|row| columns.clone().map(move |column| (row + column) as f32))
                    .collect();
                let mut full = vec![f32::NAN; if shm.rank() == 0 { 14 } else { 0 }];
                shm.gather_columns(&part, &COLUMNS, &mut full).unwrap();
                full
            })
        });
        let threads: Vec<_> = threads.collect();
        let full: Vec<Vec<f32>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let all: Vec<f32> = (0..14).map(|n| n as f32).collect();
        assert_eq!(full, [all, vec![], vec![]]);
    }

    #[test]
    fn a_rank_that_ends_frees_those_who_wait() {
        let mut ring = Shm::ring(3);
        drop(ring.pop());
        let waiting = ring
            .into_iter()
            .map(|mut shm| std::thread::spawn(move || gather(&mut shm, 2, 0.0)));
        let waiting: Vec<_> = waiting.collect();
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Err(Lost));
        }
    }

    #[test]
    fn a_rank_that_panics_frees_those_who_wait() {
        let mut ring = Shm::ring(3);
        let dying = ring.pop().unwrap();
        let waiting: Vec<_> = ring
            .into_iter()
            .map(|mut shm| std::thread::spawn(move || gather(&mut shm, 1, 0.0)))
            .collect();
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(move || {
            let _dying = dying;
            panic!("a kernel failed");
        }));
        assert!(panicked.is_err());
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Err(Lost));
        }
    }
}
