use kernels::PackedBytes;
use std::ops::Range;

/// Keeps packed matrices from one start to the next. What it lacks is packed anew.
pub trait PackedCache {
    /// The rows `outputs` of the matrix `name`, as the same program packed them before.
    fn find(&mut self, name: &str, outputs: &Range<usize>) -> Option<PackedBytes>;
    /// Takes what was just packed. It may be lost: then it is packed again.
    fn keep(&mut self, name: &str, outputs: &Range<usize>, packed: &[u8]);
}

/// Keeps nothing.
pub struct NoPackedCache;

impl PackedCache for NoPackedCache {
    fn find(&mut self, _name: &str, _outputs: &Range<usize>) -> Option<PackedBytes> {
        None
    }

    fn keep(&mut self, _name: &str, _outputs: &Range<usize>, _packed: &[u8]) {}
}
