//! How ranks put together what each of them computed.

pub mod shm;
pub mod solo;

pub use shm::Shm;
pub use solo::Solo;

use std::ops::Range;

/// The meeting of the ranks of one replica. All ranks call the same methods in the same order.
pub trait Exchange: Send {
    /// `0 .. ranks()`; rank 0 samples.
    fn rank(&self) -> usize;
    fn ranks(&self) -> usize;

    /// Puts the ranks' columns side by side. Exact: numbers are moved, none is added.
    ///
    /// `columns[r]` are the columns of rank `r`; together, in order, they are all columns. `part` is row-major
    /// `(rows, columns[rank()].len())`, `full` becomes row-major `(rows, all columns)`, the same on every rank.
    /// `rows` must be the same on all ranks, and may be 0. Returns only when no rank reads `part` any more.
    ///
    /// # Panics
    /// When the lengths do not fit each other.
    fn all_gather_columns(
        &mut self,
        part: &[f32],
        columns: &[Range<usize>],
        full: &mut [f32],
    ) -> Result<(), Lost>;

    /// The same for rank 0 alone; on others nothing becomes of `full`, which may have no rows.
    ///
    /// # Panics
    /// When the lengths do not fit each other.
    fn gather_columns(
        &mut self,
        part: &[f32],
        columns: &[Range<usize>],
        full: &mut [f32],
    ) -> Result<(), Lost>;
}

/// Another rank is gone: this step cannot be finished, nor any other of this epoch.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("another rank of the replica is gone: the replica must be started anew")]
pub struct Lost;

/// Rows of `full`, once the lengths have been checked.
fn rows_of(rank: usize, part: &[f32], columns: &[Range<usize>], full: &[f32]) -> usize {
    let total = columns.last().map_or(0, |last| last.end);
    assert!(total > 0, "columns of no rank");
    let rows = full.len() / total;
    assert_eq!(full.len(), rows * total, "full is no whole number of rows");
    assert_eq!(
        part.len(),
        rows * columns[rank].len(),
        "part has other rows than full"
    );
    rows
}

/// Rows of `part`, where no rows of `full` are there to be checked.
fn rows_in(part: &[f32], columns: &Range<usize>) -> usize {
    let rows = part.len() / columns.len().max(1);
    assert_eq!(
        part.len(),
        rows * columns.len(),
        "part is no whole number of rows"
    );
    rows
}

/// Copies one rank's columns to where they belong.
fn place(part: &[f32], columns: &Range<usize>, rows: usize, full: &mut [f32]) {
    if rows == 0 || columns.is_empty() {
        return;
    }
    let total = full.len() / rows;
    for (part, full) in part.chunks_exact(columns.len()).zip(full.chunks_exact_mut(total)) {
        full[columns.clone()].copy_from_slice(part);
    }
}
