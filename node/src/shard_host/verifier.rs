//! Bytes of a model file are verified before they are computed with: what a disk gives after months is not always what it got.
//!
//! What is packed has checksums of its own and is read instead of most of the file, so most starts verify little.

use crate::store::chunk_set::ChunkSet;
use crate::store::chunks::Manifest;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Of one file: each of its chunks is hashed once, whoever asks for it.
pub struct Verifier {
    manifest: Manifest,
    known: Mutex<Vec<Known>>,
    settled: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    /// Somebody hashes it.
    UnderWay,
    Sound,
    Damaged,
}

impl Verifier {
    pub fn new(manifest: Manifest) -> Verifier {
        Verifier {
            known: Mutex::new(vec![Known::Nothing; manifest.digests.len()]),
            settled: Condvar::new(),
            manifest,
        }
    }

    /// Returns once all chunks that hold these bytes of the file have been hashed, by up to so many threads at once. The
    /// error is the place of the first one that is not what it must be.
    pub fn verify(&self, file: &[u8], bytes: &Range<u64>, threads: usize) -> Result<(), Range<u64>> {
        let wanted = self.chunks_of(bytes);
        let others = threads.min(self.unknown(&wanted)).saturating_sub(1);
        thread::scope(|scope| {
            for _ in 0..others {
                scope.spawn(|| self.hash(file, &wanted));
            }
            self.hash(file, &wanted);
        });
        self.wait_for(&wanted)
    }

    fn chunks_of(&self, bytes: &Range<u64>) -> ChunkSet {
        let manifest = &self.manifest;
        ChunkSet::of_ranges(
            std::slice::from_ref(bytes),
            manifest.chunk_bytes,
            manifest.chunks(),
        )
    }

    fn unknown(&self, wanted: &ChunkSet) -> usize {
        let known = self.lock();
        wanted
            .iter()
            .filter(|index| known[*index as usize] == Known::Nothing)
            .count()
    }

    /// Those that nobody hashes yet.
    fn hash(&self, file: &[u8], wanted: &ChunkSet) {
        while let Some(index) = self.claim(wanted) {
            let place = self.manifest.place(index);
            let bytes = file.get(place.start as usize..place.end as usize);
            let is_sound = bytes.is_some_and(|bytes| self.manifest.verifies(index, bytes));
            self.lock()[index as usize] = match is_sound {
                true => Known::Sound,
                false => Known::Damaged,
            };
            self.settled.notify_all();
        }
    }

    fn claim(&self, wanted: &ChunkSet) -> Option<u32> {
        let mut known = self.lock();
        let index = wanted
            .iter()
            .find(|index| known[*index as usize] == Known::Nothing)?;
        known[index as usize] = Known::UnderWay;
        Some(index)
    }

    fn wait_for(&self, wanted: &ChunkSet) -> Result<(), Range<u64>> {
        let mut known = self.lock();
        while wanted
            .iter()
            .any(|index| known[index as usize] == Known::UnderWay)
        {
            known = self.settled.wait(known).unwrap_or_else(PoisonError::into_inner);
        }
        let mut damaged = wanted
            .iter()
            .filter(|index| known[*index as usize] == Known::Damaged);
        match damaged.next() {
            Some(index) => Err(self.manifest.place(index)),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    const CHUNK: usize = 100;

    fn file() -> Vec<u8> {
        (0..1050_u32).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    fn verifier() -> Verifier {
        Verifier::new(Manifest {
            file_bytes: 1050,
            chunk_bytes: CHUNK as u32,
            digests: file()
                .chunks(CHUNK)
                .map(|chunk| Sha256::digest(chunk).into())
                .collect(),
        })
    }

    #[test]
    fn only_chunks_that_hold_what_is_asked_for_are_looked_at() {
        let mut damaged = file();
        damaged[399] ^= 1;
        damaged[1049] ^= 0x80;
        for threads in [1, 4] {
            let verifier = verifier();
            let verify = |bytes: Range<u64>| verifier.verify(&damaged, &bytes, threads);
            assert_eq!(verify(0..300), Ok(()));
            assert_eq!(verify(400..1000), Ok(()));
            assert_eq!(verify(350..350), Ok(()));
            assert_eq!(verify(250..301), Err(300..400));
            assert_eq!(verify(1000..1050), Err(1000..1050));
            assert_eq!(verify(0..1050), Err(300..400), "the first of them");
        }
    }

    #[test]
    fn a_file_that_was_cut_is_damaged_where_it_ends() {
        let cut = &file()[..1020];
        let verifier = verifier();
        assert_eq!(verifier.verify(cut, &(0..1000), 2), Ok(()));
        assert_eq!(verifier.verify(cut, &(0..1050), 2), Err(1000..1050));
    }

    #[test]
    fn ranks_that_ask_for_the_same_hash_it_once_and_both_hear_of_it() {
        let mut damaged = file();
        damaged[0] ^= 1;
        let verifier = verifier();
        let heard: Vec<Result<(), Range<u64>>> = thread::scope(|scope| {
            let ranks: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| verifier.verify(&damaged, &(0..1050), 2)))
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert_eq!(heard, vec![Err(0..100); 4]);
    }
}
