//! Products with weight matrices: who computes which outputs.

pub mod float;
pub mod pair_tiles;
pub mod pairs;
pub mod quantised;
pub mod tiled;

use std::ops::Range;

use crate::cpu::activations::{Activations, TILE};
use crate::cpu::lanes::Lanes;
use crate::cpu::prefetch;
use crate::cpu::rounded::Rounded;
use crate::cpu::shared::Shared;
use crate::cpu::table::Table;
use crate::cpu::team::Team;
use crate::cpu::weights::Weights;
use crate::tensor::Tensor;
use crate::{InputPrecision, WeightFormat};

/// What a product needs besides its operands.
pub struct Multiplier<'a> {
    pub table: &'static Table,
    pub team: &'a mut Team,
    /// Scratch for the quantised `x`.
    pub activations: &'a mut Activations,
    /// Scratch for the `x` that bf16 weights see.
    pub rounded: &'a mut Rounded,
}

impl Multiplier<'_> {
    pub fn multiply(
        &mut self,
        weights: &[&Weights],
        x: &Tensor,
        precision: InputPrecision,
        out: &mut Tensor,
    ) {
        let outputs: usize = weights.iter().map(|matrix| matrix.outputs).sum();
        assert_eq!(
            (out.rows(), out.columns()),
            (x.rows(), outputs),
            "the products side by side"
        );
        assert!(
            weights.iter().all(|matrix| matrix.inputs == x.columns()),
            "rows of the matrices' inputs"
        );
        if weights.iter().any(|matrix| matrix.format.block() > 1) {
            self.quantise(x, precision);
        }
        if weights.iter().any(|matrix| matrix.format == WeightFormat::Bf16) {
            self.round(x);
        }
        let panel_rows_max = weights.iter().map(|matrix| match matrix.format {
            WeightFormat::Bf16 => (self.table.pair_panel_rows)(x.columns()),
            WeightFormat::F32
            | WeightFormat::F16
            | WeightFormat::Q8_0
            | WeightFormat::Q4_0
            | WeightFormat::Q4_1
            | WeightFormat::Q5_0
            | WeightFormat::Q4K
            | WeightFormat::Q5K
            | WeightFormat::Q6K => panel_rows(x.columns()),
        });
        let panel_rows_max = panel_rows_max.min().unwrap_or(TILE);
        let plan = Plan::new(weights, x.rows(), panel_rows_max, self.team.threads());
        let product = Product {
            table: self.table,
            x,
            activations: self.activations,
            rounded: self.rounded,
        };
        let out = Out::whole(out);
        self.team
            .share_out(plan.units(), x.rows() * x.columns() * outputs, |units| {
                plan.for_each(units, |panel, groups| {
                    product.multiply(weights, groups, plan.rows(panel), out);
                });
            });
    }

    fn quantise(&mut self, x: &Tensor, precision: InputPrecision) {
        self.activations
            .resize(x.rows(), x.columns(), precision)
            .expect("memory for the activations of a step");
        let writer = self.activations.writer();
        let quantise_row = self.table.quantise_row;
        self.team.share_out(x.rows(), x.rows() * x.columns(), |rows| {
            for row in rows {
                // SAFETY: a row is handed out once; the table is of a level the CPU has.
                unsafe { quantise_row(&writer, row, x.row(row)) };
            }
        });
    }

    fn round(&mut self, x: &Tensor) {
        self.rounded
            .resize(x.rows(), x.columns())
            .expect("memory for the activations of a step");
        let writer = self.rounded.writer();
        let round_row = self.table.round_row;
        self.team.share_out(x.rows(), x.rows() * x.columns(), |rows| {
            for row in rows {
                // SAFETY: a row is handed out once; the table is of a level the CPU has, and rounds all rows.
                unsafe { round_row(&writer, row, x.row(row)) };
            }
        });
    }
}

/// A step's work as units: some groups of output rows for each panel of rows, panel by panel.
struct Plan {
    rows: usize,
    /// A multiple of [`TILE`].
    panel_rows: usize,
    /// Of all matrices.
    groups: usize,
}

/// A panel's activations should stay in the second cache while weights stream through.
const PANEL_BYTES_MAX: usize = 512 * 1024;

/// Of so many inputs.
pub fn panel_rows(inputs: usize) -> usize {
    (PANEL_BYTES_MAX / inputs.max(1)).max(1).next_multiple_of(TILE)
}

impl Plan {
    fn new(weights: &[&Weights], rows: usize, panel_rows_max: usize, threads: usize) -> Plan {
        let groups = weights.iter().map(|matrix| matrix.groups()).sum();
        let mut panel_rows = panel_rows_max.min(rows.next_multiple_of(TILE));
        while panel_rows > TILE && rows.div_ceil(panel_rows) * groups < 4 * threads {
            panel_rows = (panel_rows / 2).next_multiple_of(TILE);
        }
        Plan {
            rows,
            panel_rows: panel_rows.max(TILE),
            groups,
        }
    }

    /// Tile units multiply two groups at a time, and one alone would take as long as both.
    fn unit_groups(&self) -> usize {
        if self.rows < TILE { 1 } else { tiled::GROUPS }
    }

    fn units(&self) -> usize {
        self.rows.div_ceil(self.panel_rows) * self.panel_units()
    }

    fn panel_units(&self) -> usize {
        self.groups.div_ceil(self.unit_groups())
    }

    fn rows(&self, panel: usize) -> Range<usize> {
        panel * self.panel_rows..self.rows.min((panel + 1) * self.panel_rows)
    }

    /// Cuts units into runs of groups of one panel.
    fn for_each(&self, mut units: Range<usize>, mut run: impl FnMut(usize, Range<usize>)) {
        while !units.is_empty() {
            let (panel, first) = (units.start / self.panel_units(), units.start % self.panel_units());
            let count = units.len().min(self.panel_units() - first);
            let group = |unit: usize| self.groups.min(unit * self.unit_groups());
            run(panel, group(first)..group(first + count));
            units.start += count;
        }
    }
}

struct Product<'a> {
    table: &'static Table,
    x: &'a Tensor,
    activations: &'a Activations,
    rounded: &'a Rounded,
}

impl Product<'_> {
    /// `groups` counts through all matrices.
    fn multiply(&self, weights: &[&Weights], groups: Range<usize>, rows: Range<usize>, mut out: Out<'_>) {
        let mut first = 0;
        for matrix in weights {
            let last = first + matrix.groups();
            let own = groups.start.clamp(first, last) - first..groups.end.clamp(first, last) - first;
            // SAFETY: each unit is handed out once, so no output is written by two; the table is of a level the
            // CPU has.
            unsafe { self.multiply_one(matrix, own, rows.clone(), out) };
            first = last;
            out.first_column += matrix.outputs;
        }
    }

    /// # Safety
    /// No other thread may write these outputs.
    unsafe fn multiply_one(&self, weights: &Weights, groups: Range<usize>, rows: Range<usize>, out: Out<'_>) {
        if groups.is_empty() {
            return;
        }
        let quantised = quantised::Task {
            weights,
            x: self.activations,
            out,
        };
        let float = float::Task {
            weights,
            x: self.x,
            out,
        };
        let pairs = pairs::Task {
            weights,
            x: self.rounded,
            out,
        };
        // SAFETY: passed on to the caller; the kernel is the one for the format.
        unsafe {
            match weights.format {
                WeightFormat::F32 => (self.table.multiply_f32)(&float, groups, rows),
                WeightFormat::F16 => (self.table.multiply_f16)(&float, groups, rows),
                WeightFormat::Bf16 => (self.table.multiply_bf16)(&pairs, groups, rows),
                WeightFormat::Q8_0 | WeightFormat::Q5_0 => {
                    (self.table.multiply_q8_0)(&quantised, groups, rows);
                }
                WeightFormat::Q4_0 => (self.table.multiply_q4_0)(&quantised, groups, rows),
                WeightFormat::Q4_1 => (self.table.multiply_q4_1)(&quantised, groups, rows),
                WeightFormat::Q4K => (self.table.multiply_q4_k)(&quantised, groups, rows),
                WeightFormat::Q5K => (self.table.multiply_q5_k)(&quantised, groups, rows),
                WeightFormat::Q6K => (self.table.multiply_q6_k)(&quantised, groups, rows),
            }
        }
    }
}

/// The columns of a tensor into which one matrix' products go.
#[derive(Clone, Copy)]
pub struct Out<'a> {
    /// Of the whole tensor.
    columns: usize,
    first_column: usize,
    values: Shared<'a, f32>,
}

impl<'a> Out<'a> {
    /// All columns.
    pub fn whole(tensor: &'a mut Tensor) -> Out<'a> {
        Out {
            columns: tensor.columns(),
            first_column: 0,
            values: Shared::new(tensor.values_mut()),
        }
    }

    /// What was stored, and zeros where there is no output.
    ///
    /// # Safety
    /// As [`store`](Self::store).
    #[inline(always)]
    pub unsafe fn load<L: Lanes>(&self, row: usize, output: usize, outputs: usize) -> L {
        let count = outputs.saturating_sub(output).min(L::COUNT);
        // SAFETY: the caller's promise; `part` checks the bounds.
        unsafe {
            let from = self.values.part(
                row * self.columns + self.first_column + output.min(outputs),
                count,
            );
            L::load_part(from.as_ptr(), count)
        }
    }

    /// Starts fetching the place of two vectors of outputs.
    #[inline(always)]
    pub fn prefetch(&self, row: usize, output: usize) {
        let place = row * self.columns + self.first_column + output;
        prefetch::near(self.values.address(place).cast(), 2 * prefetch::LINE);
    }

    /// Stores the lanes that are outputs, of which the matrix has `outputs`.
    ///
    /// # Safety
    /// No other thread may write these outputs.
    #[inline(always)]
    pub unsafe fn store<L: Lanes>(&self, lanes: L, row: usize, output: usize, outputs: usize) {
        let count = outputs.saturating_sub(output).min(L::COUNT);
        // SAFETY: the caller's promise; `part` checks the bounds.
        unsafe {
            let to = self.values.part(
                row * self.columns + self.first_column + output.min(outputs),
                count,
            );
            if count == L::COUNT {
                lanes.store(to.as_mut_ptr())
            } else {
                lanes.store_part(to.as_mut_ptr(), count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(plan: &Plan, units: Range<usize>) -> Vec<(usize, Range<usize>)> {
        let mut runs = Vec::new();
        plan.for_each(units, |panel, groups| runs.push((panel, groups)));
        runs
    }

    #[test]
    fn what_is_multiplied_together_is_in_one_unit() {
        let plan = |rows| Plan {
            rows,
            panel_rows: TILE,
            groups: 5,
        };
        let tiles = plan(2 * TILE);
        assert_eq!(tiles.units(), 6);
        assert_eq!(runs(&tiles, 0..1), [(0, 0..2)]);
        assert_eq!(runs(&tiles, 1..5), [(0, 2..5), (1, 0..4)]);
        assert_eq!(runs(&tiles, 5..6), [(1, 4..5)]);
        let few_rows = plan(TILE - 1);
        assert_eq!(few_rows.units(), 5);
        assert_eq!(runs(&few_rows, 1..2), [(0, 1..2)]);
    }
}
