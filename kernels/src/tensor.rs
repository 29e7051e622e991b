//! The tensor of devices whose memory is the host's.

use crate::OpsError;
use crate::memory::Memory;

/// f32, row-major `(rows, columns)`, with room for `rows_max` rows.
pub struct Tensor {
    rows: usize,
    columns: usize,
    values: Memory<f32>,
}

impl Tensor {
    /// Zeroed, with no rows.
    pub fn new(rows_max: usize, columns: usize) -> Result<Tensor, OpsError> {
        let len = rows_max
            .checked_mul(columns)
            .ok_or(OpsError::OutOfMemory { bytes: usize::MAX })?;
        Ok(Tensor {
            rows: 0,
            columns,
            values: Memory::zeroed(len)?,
        })
    }

    /// # Panics
    /// When `rows` is more than the capacity.
    pub fn set_rows(&mut self, rows: usize) {
        let rows_max = self.values.len().checked_div(self.columns).unwrap_or(rows);
        assert!(rows <= rows_max, "{rows} rows in a tensor for {rows_max}");
        self.rows = rows;
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.columns..][..self.columns]
    }

    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let columns = self.columns;
        &mut self.values_mut()[row * columns..][..columns]
    }

    /// All rows, one after the other.
    pub fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.columns]
    }

    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.rows * self.columns]
    }
    /// All rows of these values, by row and column.
    #[cfg(test)]
    pub fn of(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Tensor {
        let mut tensor = Tensor::new(rows, columns).unwrap();
        tensor.set_rows(rows);
        for row in 0..rows {
            let values = tensor.row_mut(row).iter_mut().enumerate();
            values.for_each(|(column, stored)| *stored = value(row, column));
        }
        tensor
    }
}
