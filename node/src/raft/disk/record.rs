//! A record: a key that says which one it is, and a payload behind a checksum of both.

use std::ops::Range;

const CHECKSUM_BYTES: usize = 4;
/// Keys are one number: the kind in the top byte, the index below.
const INDEX_BITS: u32 = 56;

/// Numbers are on disk: never reused. They are also the order of the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Manifest = 1,
    Vote = 2,
    Committed = 3,
    Purged = 4,
    Identity = 5,
    Snapshot = 6,
    Chunk = 7,
    Entry = 8,
}

const KINDS: [Kind; 8] = [
    Kind::Manifest,
    Kind::Vote,
    Kind::Committed,
    Kind::Purged,
    Kind::Identity,
    Kind::Snapshot,
    Kind::Chunk,
    Kind::Entry,
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    pub kind: Kind,
    pub index: u64,
}

impl Key {
    pub fn new(kind: Kind, index: u64) -> Key {
        assert!(index < 1 << INDEX_BITS, "index {index} of {kind:?}");
        Key { kind, index }
    }

    /// Of a kind that exists once.
    pub fn single(kind: Kind) -> Key {
        Key::new(kind, 0)
    }

    pub fn number(self) -> u64 {
        u64::from(self.kind as u8) << INDEX_BITS | self.index
    }

    /// `None`: no kind has this number.
    pub fn from_number(number: u64) -> Option<Key> {
        let kind = KINDS
            .into_iter()
            .find(|kind| u64::from(*kind as u8) == number >> INDEX_BITS)?;
        Some(Key::new(kind, number & ((1 << INDEX_BITS) - 1)))
    }
}

/// The key numbers of some records of one kind.
pub fn numbers(kind: Kind, indices: &Range<u64>) -> Range<u64> {
    Key::new(kind, indices.start).number()..Key::new(kind, indices.end).number()
}

/// The record as it lies on disk: checksum, payload.
pub fn seal(key: Key, payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + payload.len());
    sealed.extend_from_slice(&checksum(key, payload).to_le_bytes());
    sealed.extend_from_slice(payload);
    sealed
}

/// The payload of a sealed record; `None` if this is not what was sealed under this key.
pub fn open(key: Key, sealed: &[u8]) -> Option<&[u8]> {
    let (stored, payload) = sealed.split_first_chunk::<CHECKSUM_BYTES>()?;
    (u32::from_le_bytes(*stored) == checksum(key, payload)).then_some(payload)
}

pub fn checksum(key: Key, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key.number().to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_only_under_its_own_key_and_unharmed() {
        let key = Key::new(Kind::Entry, 7);
        let sealed = seal(key, b"entry");
        assert_eq!(open(key, &sealed), Some(&b"entry"[..]));
        assert_eq!(open(Key::new(Kind::Entry, 8), &sealed), None);
        assert_eq!(open(Key::new(Kind::Chunk, 7), &sealed), None);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(key, &bad), None, "bit {bit}");
        }
        for bytes in 0..sealed.len() {
            assert_eq!(open(key, &sealed[..bytes]), None, "{bytes} bytes");
        }
    }

    #[test]
    fn a_key_comes_back_from_its_number() {
        for kind in KINDS {
            let key = Key::new(kind, 1 << 40);
            assert_eq!(Key::from_number(key.number()), Some(key));
        }
        assert_eq!(Key::from_number(9 << INDEX_BITS), None);
    }
}
