//! Which chunks of a file: the unit in which models go from node to node.

use std::ops::Range;

const WORD_BITS: u32 = u64::BITS;

/// Some of a file's chunks, by their indices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkSet {
    /// Of the whole file.
    chunks: u32,
    words: Vec<u64>,
}

impl ChunkSet {
    /// None of a file's chunks.
    pub fn none(chunks: u32) -> ChunkSet {
        ChunkSet {
            chunks,
            words: vec![0; chunks.div_ceil(WORD_BITS) as usize],
        }
    }

    pub fn all(chunks: u32) -> ChunkSet {
        let mut set = ChunkSet::none(chunks);
        (0..chunks).for_each(|index| set.insert(index));
        set
    }

    /// The chunks that hold these bytes of the file. What lies beyond its end has none.
    pub fn of_ranges(ranges: &[Range<u64>], chunk_bytes: u32, chunks: u32) -> ChunkSet {
        let mut set = ChunkSet::none(chunks);
        let chunk_bytes = u64::from(chunk_bytes);
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            let end = range.end.div_ceil(chunk_bytes).min(u64::from(chunks));
            for index in range.start / chunk_bytes..end {
                set.insert(index as u32);
            }
        }
        set
    }

    /// How many chunks the file has.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// # Panics
    /// When the file has no such chunk.
    pub fn insert(&mut self, index: u32) {
        assert!(index < self.chunks, "chunk {index} of {}", self.chunks);
        self.words[(index / WORD_BITS) as usize] |= 1 << (index % WORD_BITS);
    }

    pub fn remove(&mut self, index: u32) {
        if index < self.chunks {
            self.words[(index / WORD_BITS) as usize] &= !(1 << (index % WORD_BITS));
        }
    }

    pub fn contains(&self, index: u32) -> bool {
        index < self.chunks && self.words[(index / WORD_BITS) as usize] >> (index % WORD_BITS) & 1 == 1
    }

    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.chunks).filter(|index| self.contains(*index))
    }

    /// Those that are not in `other`, which is of the same file.
    pub fn minus(&self, other: &ChunkSet) -> ChunkSet {
        self.with(other, |mine, theirs| mine & !theirs)
    }

    /// Those of both, which are of the same file.
    pub fn and(&self, other: &ChunkSet) -> ChunkSet {
        self.with(other, |mine, theirs| mine | theirs)
    }

    fn with(&self, other: &ChunkSet, join: impl Fn(u64, u64) -> u64) -> ChunkSet {
        assert_eq!(self.chunks, other.chunks, "sets of one file's chunks");
        let pairs = self.words.iter().zip(&other.words);
        ChunkSet {
            chunks: self.chunks,
            words: pairs.map(|(mine, theirs)| join(*mine, *theirs)).collect(),
        }
    }

    /// A bit for each chunk, the first one lowest.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes());
        bytes.take(self.chunks.div_ceil(8) as usize).collect()
    }

    /// `None`: these are not the bits of so many chunks.
    pub fn from_bytes(bytes: &[u8], chunks: u32) -> Option<ChunkSet> {
        if bytes.len() != chunks.div_ceil(8) as usize {
            return None;
        }
        let mut set = ChunkSet::none(chunks);
        for index in 0..bytes.len() as u32 * 8 {
            if bytes[index as usize / 8] >> (index % 8) & 1 == 1 {
                if index >= chunks {
                    return None;
                }
                set.insert(index);
            }
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_take_every_chunk_that_they_touch() {
        let of = |ranges: &[Range<u64>]| -> Vec<u32> { ChunkSet::of_ranges(ranges, 10, 5).iter().collect() };
        assert_eq!(of(&[0..1, 19..21]), [0, 1, 2]);
        assert_eq!(of(&[10..20, 12..13]), [1]);
        assert_eq!(of(&[45..1000, 60..70]), [4]);
        assert!(of(&[7..7, 50..50]).is_empty());
    }

    #[test]
    fn bits_and_sets_are_the_same_thing() {
        for chunks in [0, 1, 8, 63, 64, 65, 200] {
            let mut set = ChunkSet::none(chunks);
            (0..chunks).step_by(3).for_each(|index| set.insert(index));
            let bytes = set.to_bytes();
            assert_eq!(ChunkSet::from_bytes(&bytes, chunks), Some(set.clone()));
            let rest = ChunkSet::all(chunks).minus(&set);
            assert_eq!(rest.len() + set.len(), chunks);
            assert_eq!(rest.and(&set), ChunkSet::all(chunks));
        }
        assert_eq!(ChunkSet::from_bytes(&[0x10], 4), None, "a fifth of four");
        assert_eq!(ChunkSet::from_bytes(&[0], 9), None);
    }
}
