use super::LoadError;
use crate::exchange::{Exchange, Lost};
use kernels::Ops;
use std::ops::Range;

/// A tensor of which each rank computes some columns and all ranks get all.
pub struct Gathered<O: Ops> {
    full: O::Tensor,
    /// `None` where one rank computes all.
    part: Option<Part<O>>,
}

struct Part<O: Ops> {
    tensor: O::Tensor,
    columns: Vec<Range<usize>>,
    /// `full` on its way.
    host: Vec<f32>,
    total: usize,
}

impl<O: Ops> Gathered<O> {
    pub fn new(ops: &O, rows_max: usize, columns: Vec<Range<usize>>, rank: usize) -> Result<Self, LoadError> {
        let total = columns.last().map_or(0, |last| last.end);
        let full = workspace(ops, rows_max, total)?;
        let part = match columns.len() {
            1 => None,
            _ => Some(Part {
                tensor: workspace(ops, rows_max, columns[rank].len())?,
                columns,
                host: Vec::with_capacity(rows_max * total),
                total,
            }),
        };
        Ok(Gathered { full, part })
    }

    pub fn set_rows(&mut self, ops: &O, rows: usize) {
        ops.set_rows(&mut self.full, rows);
        if let Some(part) = &mut self.part {
            ops.set_rows(&mut part.tensor, rows);
            part.host.resize(rows * part.total, 0.0);
        }
    }

    /// Where this rank writes its columns.
    pub fn own(&mut self) -> &mut O::Tensor {
        match &mut self.part {
            Some(part) => &mut part.tensor,
            None => &mut self.full,
        }
    }

    /// All columns, once every rank has written its own.
    pub fn gather<X: Exchange>(&mut self, ops: &O, exchange: &mut X) -> Result<&O::Tensor, Lost> {
        if let Some(part) = &mut self.part {
            exchange.all_gather_columns(ops.read(&part.tensor), &part.columns, &mut part.host)?;
            ops.write(&mut self.full, &part.host);
        }
        Ok(&self.full)
    }
}

/// A tensor for intermediate results.
pub fn workspace<O: Ops>(ops: &O, rows_max: usize, columns: usize) -> Result<O::Tensor, LoadError> {
    ops.tensor(rows_max, columns)
        .map_err(|error| LoadError::device("the workspace", error))
}
