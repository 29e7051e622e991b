use std::ops::Range;

/// Says when parts of the model file can be read, where the file is still coming.
pub trait Arrivals {
    /// Returns once all these bytes of the file are there.
    fn wait_for(&mut self, bytes: &Range<u64>) -> Result<(), NeverCame>;
}

/// Bytes of the file that were to come and never will.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("bytes {} to {} of the model file did not come, though all was said to be there: please report it", .bytes.start, .bytes.end)]
pub struct NeverCame {
    pub bytes: Range<u64>,
}

/// The whole file is there.
pub struct NothingToCome;

impl Arrivals for NothingToCome {
    fn wait_for(&mut self, _bytes: &Range<u64>) -> Result<(), NeverCame> {
        Ok(())
    }
}
