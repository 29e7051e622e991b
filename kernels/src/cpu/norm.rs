//! Root-mean-square normalisation.

use crate::cpu::lanes::Lanes;

/// One row; `L` has 16 lanes.
///
/// # Safety
/// The CPU must have the instructions of `L`.
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
pub unsafe fn rms_norm_row<L: Lanes>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(
        x.len() == weight.len() && x.len() == out.len(),
        "one weight and one output per column"
    );
    // SAFETY: the caller promises the instructions; `count` values from `first` are within all three.
    unsafe {
        let factor = 1.0 / (sum_of_squares::<L>(x) / x.len() as f32 + eps).sqrt();
        let factor = L::splat(factor);
        for first in (0..x.len()).step_by(L::COUNT) {
            let count = (x.len() - first).min(L::COUNT);
            let x = L::load_part(x.as_ptr().add(first), count);
            let weight = L::load_part(weight.as_ptr().add(first), count);
            x.mul(factor)
                .mul(weight)
                .store_part(out.as_mut_ptr().add(first), count);
        }
    }
}

/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
unsafe fn sum_of_squares<L: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: the caller promises the instructions; `count` values from `first` are within the row.
    unsafe {
        let mut squares = L::splat(0.0);
        for first in (0..x.len()).step_by(L::COUNT) {
            let x = L::load_part(x.as_ptr().add(first), (x.len() - first).min(L::COUNT));
            squares = x.fma(x, squares);
        }
        squares.sum()
    }
}
