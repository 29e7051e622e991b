//! What a sampler asks of a row of logits, with the same answer on every level.

use std::ops::Range;

use crate::cpu::Level;
use crate::cpu::lanes::{Lanes, exp, greatest, sum};
use crate::cpu::table::Table;

/// Scans rows of logits.
#[derive(Clone, Copy)]
pub struct Logits {
    table: &'static Table,
}

impl Logits {
    /// At the highest level of this machine, or the lower one wished for.
    pub fn new(wish: Option<Level>) -> Logits {
        Logits {
            table: Table::of(Level::choose(wish)),
        }
    }

    /// The greatest value; NaNs do not count. −∞ for a row without others.
    pub fn max(&self, row: &[f32]) -> f32 {
        // SAFETY: the table is of a level the CPU has.
        unsafe { (self.table.greatest)(row) }
    }

    /// The lowest index of the greatest value, or 0 in a row without any.
    pub fn argmax(&self, row: &[f32]) -> usize {
        let most = self.max(row);
        row.iter().position(|x| *x == most).unwrap_or(0)
    }

    /// `ln Σ eˣ`. Sums of 16 f32 lanes over [`CHUNK`] values each, added pairwise, then in f64, ascending.
    pub fn log_sum_exp(&self, row: &[f32]) -> f64 {
        let most = self.max(row);
        // SAFETY: the table is of a level the CPU has.
        f64::from(most) + unsafe { (self.table.sum_of_exp)(row, most) }.ln()
    }
}

/// Values summed in f32: few enough to lose no digits that matter, enough to be fast.
pub const CHUNK: usize = 1024;

/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
pub(crate) unsafe fn greatest_lanes<L: Lanes>(row: &[f32]) -> f32 {
    // SAFETY: the caller promises the instructions; parts are within the row.
    unsafe {
        let lowest = L::splat(f32::NEG_INFINITY);
        let mut most = lowest;
        for part in parts(0..row.len(), L::COUNT) {
            let lanes = L::load_part(row.as_ptr().add(part.start), part.len());
            most = lanes.first(part.len(), lowest).max(most);
        }
        greatest(most)
    }
}

/// Σ exp(x − most).
///
/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
pub(crate) unsafe fn sum_of_exp_lanes<L: Lanes>(row: &[f32], most: f32) -> f64 {
    let mut total = 0.0;
    for chunk in parts(0..row.len(), CHUNK) {
        // SAFETY: the caller promises the instructions; parts are within the row.
        unsafe {
            let zero = L::splat(0.0);
            let mut lanes = zero;
            for part in parts(chunk, L::COUNT) {
                let x = L::load_part(row.as_ptr().add(part.start), part.len()).sub(L::splat(most));
                lanes = lanes.add(exp(x).first(part.len(), zero));
            }
            total += f64::from(sum(lanes));
        }
    }
    total
}

#[inline(always)]
fn parts(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(len).map(move |start| start..end.min(start + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(len: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 7919) % 1000) as f32 * 0.02 - 10.0)
            .collect()
    }

    #[test]
    fn the_lowest_index_wins_a_tie() {
        let mut row = row(1000);
        row[17] = 99.0;
        row[300] = 99.0;
        assert_eq!(Logits::new(None).argmax(&row), 17);
        row[300] = f32::NAN;
        row[3] = f32::NAN;
        assert_eq!(Logits::new(None).argmax(&row), 17);
        assert_eq!(Logits::new(None).argmax(&[f32::NAN]), 0);
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        for len in [0, 1, 15, 16, 17, 1024, 1040, 5001] {
            let row = row(len);
            let scalar = Logits::new(Some(Level::Scalar));
            for level in Level::ALL {
                let logits = Logits::new(Some(level));
                assert_eq!(logits.max(&row), scalar.max(&row));
                assert_eq!(logits.argmax(&row), scalar.argmax(&row));
                assert_eq!(
                    logits.log_sum_exp(&row).to_bits(),
                    scalar.log_sum_exp(&row).to_bits()
                );
            }
        }
    }

    #[test]
    fn log_sum_exp_is_accurate() {
        let row = row(49152);
        let exact = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        assert!((Logits::new(None).log_sum_exp(&row) - exact).abs() < 1e-6);
    }
}
