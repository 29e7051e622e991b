//! What of a model file can be read while the node is still fetching it: whoever needs more waits.

use proto::weights::{FilePart, Landed};
use shard::ArrivalError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So often whoever waits can say that he still does.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// As the node tells it. Nothing else of the file may be looked at: it is a hole, or was not verified.
#[derive(Default)]
pub struct LandedParts {
    known: Mutex<Known>,
    told: Condvar,
}

#[derive(Default)]
struct Known {
    /// Where each part begins and ends; none touches the next.
    parts: BTreeMap<u64, u64>,
    /// There is nothing to wait for any more.
    is_all: bool,
}

impl LandedParts {
    pub fn take(&self, landed: Landed) {
        let mut known = self.lock();
        match landed {
            Landed::Parts(parts) => parts.into_iter().for_each(|part| known.add(part)),
            Landed::All => known.is_all = true,
        }
        drop(known);
        self.told.notify_all();
    }

    /// Until all has come and survives a crash.
    pub fn wait_for_all(&self, beat: &mut dyn FnMut()) {
        self.wait_until(beat, |known| known.is_all.then_some(()));
    }

    /// Until these bytes are there; `beat` is called now and then meanwhile.
    pub fn wait_for(&self, bytes: &Range<u64>, beat: &mut dyn FnMut()) -> Result<(), ArrivalError> {
        let never = || ArrivalError::NeverCame { bytes: bytes.clone() };
        self.wait_until(beat, |known| match known.has(bytes) {
            true => Some(Ok(())),
            false => known.is_all.then(|| Err(never())),
        })
    }

    /// So much of the file's beginning is there. Waits until any of it is, or nothing is to be waited for.
    pub fn beginning_bytes(&self) -> u64 {
        self.wait_until(&mut || {}, |known| match known.parts.get(&0) {
            Some(end) => Some(*end),
            None => known.is_all.then_some(0),
        })
    }

    fn wait_until<T>(&self, beat: &mut dyn FnMut(), is_reached: impl Fn(&Known) -> Option<T>) -> T {
        let mut known = self.lock();
        loop {
            if let Some(reached) = is_reached(&known) {
                return reached;
            }
            let waited = self.told.wait_timeout(known, BEAT_EVERY);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            known = now;
            if timeout.timed_out() {
                beat();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, part: FilePart) {
        let (mut start, mut end) = (part.start, part.end);
        if start >= end {
            return;
        }
        while let Some((before, its_end)) = self.parts.range(..=end).next_back().map(|(at, end)| (*at, *end))
            && its_end >= start
        {
            self.parts.remove(&before);
            (start, end) = (start.min(before), end.max(its_end));
        }
        self.parts.insert(start, end);
    }

    fn has(&self, bytes: &Range<u64>) -> bool {
        let part = self.parts.range(..=bytes.start).next_back();
        bytes.is_empty() || part.is_some_and(|(_, end)| *end >= bytes.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    fn take(landed: &LandedParts, bytes: &Range<u64>) {
        let part = FilePart {
            start: bytes.start,
            end: bytes.end,
        };
        landed.take(Landed::Parts(vec![part]));
    }

    fn known(landed: &[Range<u64>]) -> Vec<(u64, u64)> {
        let all = LandedParts::default();
        landed.iter().for_each(|bytes| take(&all, bytes));
        let known = all.lock();
        known.parts.iter().map(|(start, end)| (*start, *end)).collect()
    }

    #[test]
    fn parts_grow_together_in_whatever_order_they_come() {
        assert_eq!(known(&[0..10, 20..30, 10..20]), [(0, 30)]);
        assert_eq!(known(&[20..30, 0..10, 5..5]), [(0, 10), (20, 30)]);
        assert_eq!(known(&[5..6, 8..9, 11..12, 0..20]), [(0, 20)]);
        assert_eq!(known(&[0..20, 5..6]), [(0, 20)]);
        assert_eq!(known(&[10..20, 5..10, 30..40, 15..31]), [(5, 40)]);
    }

    #[test]
    fn whoever_waits_goes_on_when_all_of_his_bytes_are_there() {
        let landed = Arc::new(LandedParts::default());
        let (sender, came) = channel();
        let waiting = Arc::clone(&landed);
        let thread = thread::spawn(move || {
            for bytes in [0..5, 8..25, 7..7] {
                waiting.wait_for(&bytes, &mut || {}).unwrap();
                sender.send(bytes).unwrap();
            }
            waiting.wait_for_all(&mut || {});
        });
        take(&landed, &(20..30));
        take(&landed, &(0..10));
        assert_eq!(came.recv().unwrap(), 0..5);
        assert!(came.try_recv().is_err(), "the middle of it is a hole");
        take(&landed, &(10..20));
        assert_eq!(came.recv().unwrap(), 8..25);
        assert_eq!(came.recv().unwrap(), 7..7);
        assert!(!thread.is_finished(), "all is there when the node says so");
        landed.take(Landed::All);
        thread.join().unwrap();
    }

    #[test]
    fn what_was_not_among_all_never_comes() {
        let landed = LandedParts::default();
        take(&landed, &(0..10));
        take(&landed, &(20..30));
        landed.take(Landed::All);
        assert_eq!(landed.wait_for(&(20..30), &mut || {}), Ok(()));
        let never = landed.wait_for(&(5..15), &mut || {});
        assert_eq!(never, Err(ArrivalError::NeverCame { bytes: 5..15 }));
    }
}
