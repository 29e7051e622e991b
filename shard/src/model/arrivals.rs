use std::ops::Range;

/// Says when parts of the model file can be read: it may still be coming, and nothing damaged may be computed with.
pub trait Arrivals {
    /// Returns once all these bytes of the file are there and are what they must be.
    fn wait_for(&mut self, bytes: &Range<u64>) -> Result<(), ArrivalError>;
}

/// Bytes of the file that cannot be read.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum ArrivalError {
    /// They were to come and never will.
    #[error("bytes {} to {} of the model file did not come, though all was said to be there: please report it", .bytes.start, .bytes.end)]
    NeverCame { bytes: Range<u64> },
    #[error("bytes {} to {} of the model file are not what they were when it came", .bytes.start, .bytes.end)]
    Damaged { bytes: Range<u64> },
}

/// The whole file is there, and nobody doubts it.
pub struct NothingToCome;

impl Arrivals for NothingToCome {
    fn wait_for(&mut self, _bytes: &Range<u64>) -> Result<(), ArrivalError> {
        Ok(())
    }
}
