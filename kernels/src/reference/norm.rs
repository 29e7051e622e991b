//! Root-mean-square normalisation.

use crate::scalar::add_lanes;
use crate::tensor::Tensor;

pub fn rms_norm(x: &Tensor, weight: &[f32], eps: f32, out: &mut Tensor) {
    assert_eq!(
        (x.rows(), x.columns()),
        (out.rows(), out.columns()),
        "in and out of one shape"
    );
    assert_eq!(weight.len(), x.columns(), "one weight per column");
    for row in 0..x.rows() {
        let x = x.row(row);
        let factor = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
        for (column, out) in out.row_mut(row).iter_mut().enumerate() {
            *out = x[column] * factor * weight[column];
        }
    }
}

fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (column, x) in x.iter().enumerate() {
        lanes[column % 16] = x.mul_add(*x, lanes[column % 16]);
    }
    add_lanes(lanes)
}
