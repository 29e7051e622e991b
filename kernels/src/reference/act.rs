//! Activation functions.

use crate::scalar::silu;
use crate::tensor::Tensor;

pub fn silu_mul(x: &Tensor, out: &mut Tensor) {
    assert_eq!(
        (x.rows(), x.columns()),
        (out.rows(), 2 * out.columns()),
        "gate and up side by side"
    );
    for row in 0..x.rows() {
        let (gate, up) = x.row(row).split_at(out.columns());
        for (column, out) in out.row_mut(row).iter_mut().enumerate() {
            *out = silu(gate[column]) * up[column];
        }
    }
}
