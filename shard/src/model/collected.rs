use super::LoadError;
use super::gathered::workspace;
use crate::exchange::{Exchange, Lost};
use kernels::Ops;
use std::ops::Range;

/// A tensor of which each rank computes some columns, and the first rank gets all of them, on the host.
pub struct Collected<O: Ops> {
    part: O::Tensor,
    columns: Vec<Range<usize>>,
    /// Where several ranks compute; empty on all but the first.
    all: Vec<f32>,
    rank: usize,
}

impl<O: Ops> Collected<O> {
    pub fn new(ops: &O, rows_max: usize, columns: Vec<Range<usize>>, rank: usize) -> Result<Self, LoadError> {
        let mut collected = Collected {
            part: workspace(ops, rows_max, columns[rank].len())?,
            columns,
            all: Vec::new(),
            rank,
        };
        collected.all.reserve_exact(rows_max * collected.width());
        Ok(collected)
    }

    /// Of a row on this rank, once all have come together; 0 where they do not.
    fn width(&self) -> usize {
        match (self.columns.len(), self.rank) {
            (2.., 0) => self.columns.last().map_or(0, |last| last.end),
            _ => 0,
        }
    }

    pub fn set_rows(&mut self, ops: &O, rows: usize) {
        ops.set_rows(&mut self.part, rows);
        self.all.resize(rows * self.width(), 0.0);
    }

    /// Where this rank writes its columns.
    pub fn own(&mut self) -> &mut O::Tensor {
        &mut self.part
    }

    /// All columns, row-major, once every rank has written its own; of no use on others than the first.
    pub fn collect<X: Exchange>(&mut self, ops: &O, exchange: &mut X) -> Result<&[f32], Lost> {
        let part = ops.read(&self.part);
        match self.columns.len() {
            1 => Ok(part),
            _ => {
                exchange.gather_columns(part, &self.columns, &mut self.all)?;
                Ok(&self.all)
            }
        }
    }
}
