//! Activation functions.

use crate::cpu::lanes::{Lanes, exp};

/// `out = silu(gate) · up` of one row.
///
/// # Safety
/// The CPU must have the instructions of `L`.
///
/// # Panics
/// When `x` is not twice as long as `out`.
#[inline(always)]
pub unsafe fn silu_mul_row<L: Lanes>(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), 2 * out.len(), "gate and up side by side");
    let (gate, up) = x.split_at(out.len());
    let mut first = 0;
    while first < out.len() {
        let count = (out.len() - first).min(L::COUNT);
        // SAFETY: the caller promises the instructions; `count` values from `first` are within all three.
        unsafe {
            let gate = L::load_part(gate.as_ptr().add(first), count);
            let up = L::load_part(up.as_ptr().add(first), count);
            silu(gate).mul(up).store_part(out.as_mut_ptr().add(first), count);
        }
        first += count;
    }
}

/// # Safety
/// The CPU must have the instructions of `L`.
#[inline(always)]
unsafe fn silu<L: Lanes>(x: L) -> L {
    // SAFETY: passed on to the caller.
    unsafe {
        // −0 − x is −x also where x is 0.
        let negated = L::splat(-0.0).sub(x);
        x.div(L::splat(1.0).add(exp(negated)))
    }
}

/// `x += y`.
///
/// # Safety
/// The CPU must have what the function is compiled for.
#[inline(always)]
pub unsafe fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
