//! The fast CPU backend: every kernel written once over `lanes::Lanes`, compiled for each [`Level`], called through the
//! `table::Table` of the level, its work shared by a [`Team`].

mod level;
mod team;

pub(crate) mod lanes;
pub(crate) mod table;

mod act;
mod activations;
mod attention;
mod five_bits;
mod four_bits;
mod isa;
mod matmul;
mod norm;
mod pages;
mod pairing;
mod prefetch;
mod rope;
mod rounded;
mod scales;
mod shared;
mod shares;
mod six_bits;
mod weights;

pub use activations::row_bytes as quantised_row_bytes;
pub use level::{Level, UnknownLevel};
pub use pages::Pages;
pub use rounded::rounded_row_bytes;
pub use team::Team;
pub use weights::Weights;

use crate::memory::Memory;
use crate::tensor::Tensor;
use crate::{
    AttentionShape, Batch, InputPrecision, KvFormat, Ops, OpsError, PackedBytes, RopeTable, WeightFormat,
};
use activations::Activations;
use attention::agenda::{self, Agenda};
use matmul::Multiplier;
use rope::Heads;
use rounded::Rounded;
use shared::Shared;
use table::Table;

/// All cores that the team was given. Same bits as [`crate::Reference`].
pub struct Cpu {
    level: Level,
    table: &'static Table,
    team: Team,
    /// Scratch of `matmul`.
    activations: Activations,
    /// Scratch of `matmul` with weights of bf16.
    rounded: Rounded,
    /// Scratch of `attention`.
    agenda: Agenda,
    /// What came of parts that are joined later.
    kept: Memory<f32>,
}

impl Cpu {
    /// At the level of [`Level::choose`]. Errors: no memory.
    pub fn new(team: Team, wish: Option<Level>) -> Result<Cpu, OpsError> {
        let level = Level::choose(wish);
        let table = Table::of(level);
        // All that may ever be needed: the operating system grants it as it is used.
        let kept_max = match team.threads() {
            1 => 0,
            _ => agenda::KEPT_MAX,
        };
        Ok(Cpu {
            level,
            table,
            team,
            activations: Activations::new()?,
            rounded: Rounded::new()?,
            agenda: Agenda::default(),
            kept: Memory::zeroed(kept_max)?,
        })
    }

    pub fn level(&self) -> Level {
        self.level
    }

    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Calls `work` for every row of `out`, shared by the team.
    fn for_each_row(&mut self, out: &mut Tensor, work: impl Fn(usize, &mut [f32]) + Sync) {
        let (rows, columns) = (out.rows(), out.columns());
        let values = Shared::new(out.values_mut());
        self.team
            .share_out(rows, rows * columns * OPERATIONS_PER_ELEMENT, |rows| {
                for row in rows {
                    // SAFETY: a row is handed out once.
                    work(row, unsafe { values.part(row * columns, columns) });
                }
            });
    }
}

/// Of operations on rows, roughly.
const OPERATIONS_PER_ELEMENT: usize = 4;

impl Ops for Cpu {
    type Tensor = Tensor;
    type Weights = Weights;
    type Pages = Pages;

    fn tensor(&self, rows_max: usize, columns: usize) -> Result<Tensor, OpsError> {
        Tensor::new(rows_max, columns)
    }

    fn set_rows(&self, tensor: &mut Tensor, rows: usize) {
        tensor.set_rows(rows);
    }

    fn read<'a>(&self, tensor: &'a Tensor) -> &'a [f32] {
        tensor.values()
    }

    fn write(&self, tensor: &mut Tensor, values: &[f32]) {
        tensor.values_mut().copy_from_slice(values);
    }

    fn packing(&self) -> u32 {
        self.table.pairing.packing()
    }

    fn pack(
        &self,
        format: WeightFormat,
        bytes: &[u8],
        outputs: usize,
        inputs: usize,
    ) -> Result<Weights, OpsError> {
        Weights::pack(format, self.table.pairing, bytes, outputs, inputs)
    }

    fn packed<'a>(&self, weights: &'a Weights) -> &'a [u8] {
        &weights.bytes
    }

    fn adopt(
        &self,
        format: WeightFormat,
        packed: PackedBytes,
        outputs: usize,
        inputs: usize,
    ) -> Result<Weights, OpsError> {
        Weights::adopt(format, self.table.pairing, packed, outputs, inputs)
    }

    fn pages(&self, shape: &AttentionShape, blocks: usize) -> Result<Pages, OpsError> {
        Pages::new(shape, self.table.pairing, blocks)
    }

    fn embed(&mut self, table: &Weights, tokens: &[u32], out: &mut Tensor) {
        assert_eq!(
            (out.rows(), out.columns()),
            (tokens.len(), table.inputs),
            "one row per token"
        );
        self.for_each_row(out, |row, out| table.dequantise_row(tokens[row] as usize, out));
    }

    fn rms_norm(&mut self, x: &Tensor, weight: &[f32], eps: f32, out: &mut Tensor) {
        assert_eq!(
            (x.rows(), x.columns()),
            (out.rows(), out.columns()),
            "in and out of one shape"
        );
        let rms_norm_row = self.table.rms_norm_row;
        // SAFETY: the table is of a level the CPU has.
        self.for_each_row(out, |row, out| unsafe {
            rms_norm_row(x.row(row), weight, eps, out)
        });
    }

    fn matmul(&mut self, weights: &[&Weights], x: &Tensor, precision: InputPrecision, out: &mut Tensor) {
        let Cpu {
            table,
            team,
            activations,
            rounded,
            ..
        } = self;
        Multiplier {
            table,
            team,
            activations,
            rounded,
        }
        .multiply(weights, x, precision, out);
    }

    fn rope(
        &mut self,
        table: &RopeTable,
        positions: &[u32],
        x: &mut Tensor,
        first_column: usize,
        heads: usize,
        head_dim: usize,
    ) {
        assert_eq!(positions.len(), x.rows(), "one position per row");
        assert!(table.rotated <= head_dim, "rotates more than a head has");
        let heads = Heads {
            first_column,
            heads,
            head_dim,
        };
        let rope_row = self.table.rope_row;
        // SAFETY: the table is of a level the CPU has.
        self.for_each_row(x, |row, x| unsafe {
            rope_row(table, positions[row] as usize, x, heads)
        });
    }

    fn append_kv(
        &mut self,
        shape: &AttentionShape,
        batch: &Batch,
        qkv: &Tensor,
        k_column: usize,
        v_column: usize,
        pages: &mut Pages,
    ) {
        pages.assert_of(shape, self.table.pairing);
        let writer = pages.writer();
        let operations = qkv.rows() * shape.kv_heads * shape.head_dim;
        self.team.share_out(shape.kv_heads, operations, |kv_heads| {
            for kv_head in kv_heads {
                let columns =
                    |first| first + kv_head * shape.head_dim..first + (kv_head + 1) * shape.head_dim;
                for_each_position(batch, |sequence, row, position| {
                    let (k, v) = (&qkv.row(row)[columns(k_column)], &qkv.row(row)[columns(v_column)]);
                    // SAFETY: a KV head is handed out once.
                    unsafe { writer.put(sequence, position, kv_head, k, v) };
                });
            }
        });
    }

    fn attention(
        &mut self,
        shape: &AttentionShape,
        batch: &Batch,
        qkv: &Tensor,
        pages: &Pages,
        out: &mut Tensor,
    ) {
        shape.assert_heads_fit();
        pages.assert_of(shape, self.table.pairing);
        assert_eq!(
            (out.rows(), out.columns()),
            (qkv.rows(), shape.heads * shape.head_dim),
            "heads of each row"
        );
        let Cpu {
            table,
            team,
            agenda,
            kept,
            ..
        } = self;
        agenda.plan(shape, batch, team.threads(), table.attend_at_a_time);
        let attend = match shape.kv {
            KvFormat::Bf16 => table.attend_bf16,
            KvFormat::Int8 => table.attend_int8,
        };
        let task = attention::Task {
            shape,
            qkv,
            pages,
            out: Shared::new(out.values_mut()),
            kept: Shared::new(kept),
        };
        team.share_out(agenda.units(), operations(shape, batch), |units| {
            for unit in units {
                // SAFETY: the table is of a level the CPU has, the pages are of this form; a unit is handed out once, and units share no
                // part of a query: `plan` has checked the rows.
                unsafe { attend(&task, &agenda.unit(unit, shape, batch)) };
            }
        });
        if agenda.joins() > 0 {
            team.share_out(agenda.joins(), agenda.kept(), |joins| {
                for join in joins {
                    // SAFETY: as above; a query is handed out once, and all of its parts are there.
                    unsafe { attend(&task, &agenda.join(join, shape, batch)) };
                }
            });
        }
    }

    fn silu_mul(&mut self, x: &Tensor, out: &mut Tensor) {
        assert_eq!(
            (x.rows(), x.columns()),
            (out.rows(), 2 * out.columns()),
            "gate and up side by side"
        );
        let silu_mul_row = self.table.silu_mul_row;
        // SAFETY: the table is of a level the CPU has.
        self.for_each_row(out, |row, out| unsafe { silu_mul_row(x.row(row), out) });
    }

    fn add(&mut self, x: &mut Tensor, y: &Tensor) {
        assert_eq!(
            (x.rows(), x.columns()),
            (y.rows(), y.columns()),
            "terms of one shape"
        );
        let add = self.table.add;
        // SAFETY: the table is of a level the CPU has.
        self.for_each_row(x, |row, x| unsafe { add(x, y.row(row)) });
    }

    fn gather_rows(&mut self, x: &Tensor, rows: &[u32], out: &mut Tensor) {
        assert_eq!(
            (out.rows(), out.columns()),
            (rows.len(), x.columns()),
            "one row per index"
        );
        self.for_each_row(out, |row, out| out.copy_from_slice(x.row(rows[row] as usize)));
    }

    fn zero_blocks(&mut self, pages: &mut Pages, blocks: &[u32]) {
        pages.zero_blocks(blocks);
    }
}

fn for_each_position<'a>(batch: &'a Batch, mut work: impl FnMut(&'a crate::SequenceRows, usize, usize)) {
    for sequence in &batch.sequences {
        for index in 0..sequence.rows {
            work(sequence, sequence.first_row + index, sequence.start + index);
        }
    }
}

/// About how many multiplications attention will take.
fn operations(shape: &AttentionShape, batch: &Batch) -> usize {
    let seen: usize = batch
        .sequences
        .iter()
        .map(|rows| rows.rows * (rows.start + rows.rows))
        .sum();
    seen * shape.heads * shape.head_dim
}
