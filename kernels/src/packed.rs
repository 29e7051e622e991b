//! Weights in the form that kernels read, kept by somebody else: a mapped file, most likely.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// What keeps the bytes; the same ones, for as long as it lives.
pub type Keeper = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A part of what a keeper keeps.
#[derive(Clone)]
pub struct PackedBytes {
    keeper: Keeper,
    range: Range<usize>,
}

impl PackedBytes {
    /// `None` when there are not so many bytes.
    pub fn new(keeper: Keeper, range: Range<usize>) -> Option<PackedBytes> {
        (*keeper).as_ref().get(range.clone())?;
        Some(PackedBytes { keeper, range })
    }
}

impl Deref for PackedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.keeper).as_ref()[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_not_there_is_none() {
        let keeper: Keeper = Arc::new(vec![1u8, 2, 3]);
        let part = |range| PackedBytes::new(Arc::clone(&keeper), range).map(|part| part.to_vec());
        assert_eq!(part(1..3), Some(vec![2, 3]));
        assert_eq!(part(3..3), Some(Vec::new()));
        assert_eq!(part(1..4), None);
        assert_eq!(part(4..4), None);
    }
}
