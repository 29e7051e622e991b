use super::fetch::Which;
use crate::store::chunk_set::ChunkSet;
use crate::store::chunks::Manifest;
use std::collections::{BTreeMap, BTreeSet};

/// Chunks that are asked of nobody now, in the order in which they are wanted.
pub(super) struct Missing {
    /// Of all that are wanted in another order than that of the file.
    turns: BTreeMap<u32, u32>,
    chunks: BTreeSet<(u32, u32)>,
}

impl Missing {
    pub fn of(which: &Which, manifest: &Manifest, chunks: &ChunkSet) -> Missing {
        let mut missing = Missing {
            turns: turns(which, manifest),
            chunks: BTreeSet::new(),
        };
        missing.extend(chunks.iter());
        missing
    }

    pub fn insert(&mut self, chunk: u32) {
        self.chunks.insert((self.turn(chunk), chunk));
    }

    pub fn extend(&mut self, chunks: impl Iterator<Item = u32>) {
        chunks.for_each(|chunk| self.insert(chunk));
    }

    pub fn remove(&mut self, chunk: u32) {
        self.chunks.remove(&(self.turn(chunk), chunk));
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().map(|(_, chunk)| *chunk)
    }

    fn turn(&self, chunk: u32) -> u32 {
        self.turns.get(&chunk).copied().unwrap_or(0)
    }
}

/// A chunk that several ranges need has the turn of the first of them.
fn turns(which: &Which, manifest: &Manifest) -> BTreeMap<u32, u32> {
    let ranges = match which {
        Which::Ranges(ranges) => ranges.as_slice(),
        Which::All | Which::Head(_) => &[],
    };
    let mut turns = BTreeMap::new();
    for (turn, range) in (0..).zip(ranges) {
        let chunks = ChunkSet::of_ranges(
            std::slice::from_ref(range),
            manifest.chunk_bytes,
            manifest.chunks(),
        );
        for chunk in chunks.iter() {
            turns.entry(chunk).or_insert(turn);
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_wanted_in_their_order_and_the_whole_file_in_its_own() {
        let manifest = Manifest {
            file_bytes: 100,
            chunk_bytes: 10,
            digests: vec![[0; 32]; 10],
        };
        let order = |which: &Which, chunks: &ChunkSet| -> Vec<u32> {
            Missing::of(which, &manifest, chunks).iter().collect()
        };
        let all = ChunkSet::all(10);
        assert_eq!(order(&Which::All, &all), (0..10).collect::<Vec<u32>>());
        let ranges = Which::Ranges(vec![0..5, 75..100, 21..45, 40..61]);
        let wanted = ranges.chunks(&manifest);
        assert_eq!(order(&ranges, &wanted), [0, 7, 8, 9, 2, 3, 4, 5, 6]);
        let mut missing = Missing::of(&ranges, &manifest, &wanted);
        missing.remove(8);
        missing.remove(2);
        missing.insert(8);
        assert_eq!(missing.iter().collect::<Vec<u32>>(), [0, 7, 8, 9, 3, 4, 5, 6]);
    }
}
