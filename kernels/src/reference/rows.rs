//! Operations that move or add whole rows.

use crate::reference::Matrix;
use crate::tensor::Tensor;

pub fn embed(table: &Matrix, tokens: &[u32], out: &mut Tensor) {
    assert_eq!(
        (out.rows(), out.columns()),
        (tokens.len(), table.inputs()),
        "one row per token"
    );
    for (row, token) in tokens.iter().enumerate() {
        for (column, out) in out.row_mut(row).iter_mut().enumerate() {
            *out = table.weight(*token as usize, column);
        }
    }
}

pub fn add(x: &mut Tensor, y: &Tensor) {
    assert_eq!(
        (x.rows(), x.columns()),
        (y.rows(), y.columns()),
        "terms of one shape"
    );
    for (x, y) in x.values_mut().iter_mut().zip(y.values()) {
        *x += y;
    }
}

pub fn gather_rows(x: &Tensor, rows: &[u32], out: &mut Tensor) {
    assert_eq!(
        (out.rows(), out.columns()),
        (rows.len(), x.columns()),
        "one row per index"
    );
    for (row, source) in rows.iter().enumerate() {
        out.row_mut(row).copy_from_slice(x.row(*source as usize));
    }
}
