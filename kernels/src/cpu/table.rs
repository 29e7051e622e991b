//! The kernels of one level.

use std::ops::Range;

use crate::cpu::activations::{Writer, quantise_row};
use crate::cpu::attention::products::Wide;
use crate::cpu::attention::{self, Unit};
use crate::cpu::isa;
use crate::cpu::lanes::Pair;
use crate::cpu::level::Level;
use crate::cpu::matmul::{float, pair_tiles, pairs, panel_rows, quantised, tiled};
use crate::cpu::pairing::Pairing;
use crate::cpu::rope::Heads;
use crate::cpu::rounded::{self, round_row_crossed, round_row_tiled, round_row_wide};
use crate::cpu::scales::{Scale, ScaleMinimum, SuperScale, SuperScaleMinimum};

use crate::cpu::{act, norm, pages, rope};
use crate::{AttentionShape, RopeTable};

type Quantised = unsafe fn(&quantised::Task<'_>, Range<usize>, Range<usize>);
type Attend = unsafe fn(&attention::Task<'_>, &Unit<'_>);
type Float = unsafe fn(&float::Task<'_>, Range<usize>, Range<usize>);
type Pairs = unsafe fn(&pairs::Task<'_>, Range<usize>, Range<usize>);

/// Each is `unsafe`: the CPU must have the level, besides what the kernel itself demands.
pub struct Table {
    pub quantise_row: unsafe fn(&Writer<'_>, usize, &[f32]),
    /// As `multiply_bf16` wants its inputs.
    pub round_row: unsafe fn(&rounded::Writer<'_>, usize, &[f32]),
    pub multiply_q8_0: Quantised,
    pub multiply_q4_0: Quantised,
    pub multiply_q4_1: Quantised,
    pub multiply_q4_k: Quantised,
    pub multiply_q5_k: Quantised,
    pub multiply_q6_k: Quantised,
    pub multiply_f32: Float,
    pub multiply_f16: Float,
    pub multiply_bf16: Pairs,
    /// Of the words that `multiply_bf16` and `attend_bf16` read.
    pub pairing: Pairing,
    /// Rows of so many inputs that `multiply_bf16` takes at a time, at most: a multiple of [`TILE`](crate::cpu::activations::TILE).
    pub pair_panel_rows: fn(usize) -> usize,
    pub rms_norm_row: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub rope_row: unsafe fn(&RopeTable, usize, &mut [f32], Heads),
    /// How many queries they take at a time, of so many that share keys.
    pub attend_at_a_time: fn(&AttentionShape, usize) -> usize,
    pub attend_bf16: Attend,
    pub attend_int8: Attend,
    pub silu_mul_row: unsafe fn(&[f32], &mut [f32]),
    pub add: unsafe fn(&mut [f32], &[f32]),
}

impl Table {
    /// # Panics
    /// When this machine lacks the level, which would make the kernels unsound.
    pub fn of(level: Level) -> &'static Table {
        assert_eq!(level, Level::choose(Some(level)), "this CPU has no {level}");
        match level {
            Level::Scalar => &scalar::TABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => &avx2::TABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => &avx512::TABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => &avx512vnni::TABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => &avx512bf16::TABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Amx => &amx::TABLE,
            #[cfg(not(target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 | Level::Amx => {
                unreachable!("not detected")
            }
        }
    }
}

/// Compiles every kernel for an instruction set: its 16 lanes, its lanes for products, its block products, and how many
/// rows (of a float product), rows (of a product of pairs), tiles and vectors (of attention) its registers hold.
macro_rules! kernels {
    (
        $(#[$features:meta])*
        $module:ident: lanes $lanes:ty, narrow $narrow:ty, dots $dots:ident,
        rows $rows:literal, pairs $pairs:literal, tiles $tiles:literal, vectors $vectors:literal
    ) => {
        mod $module {
            use super::*;
            use isa::$dots::{Q4, Q5, Q6, Q8};

            pub const TABLE: Table = Table {
                quantise_row: quantise,
                round_row: round,
                multiply_q8_0,
                multiply_q4_0,
                multiply_q4_1,
                multiply_q4_k,
                multiply_q5_k,
                multiply_q6_k,
                multiply_f32,
                multiply_f16,
                multiply_bf16,
                pairing: Pairing::Neighbours,
                pair_panel_rows: panel_rows,
                rms_norm_row,
                rope_row,
                attend_at_a_time: |_, _| attention::vectors::QUERIES_MAX,
                attend_bf16,
                attend_int8,
                silu_mul_row,
                add,
            };

            kernels! { @each $(#[$features])*
                quantise(writer: &Writer<'_>, row: usize, x: &[f32]) = quantise_row;
                round(writer: &rounded::Writer<'_>, row: usize, x: &[f32]) = round_row_wide;
                multiply_q8_0(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = quantised::multiply::<Q8, Scale>;
                multiply_q4_0(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = quantised::multiply::<Q4<8>, Scale>;
                multiply_q4_1(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = quantised::multiply::<Q4<0>, ScaleMinimum>;
                multiply_q4_k(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = quantised::multiply::<Q4<0>, SuperScaleMinimum>;
                multiply_q5_k(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = quantised::multiply::<Q5, SuperScaleMinimum>;
                multiply_q6_k(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = quantised::multiply::<Q6, SuperScale>;
                multiply_f32(task: &float::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = float::multiply::<$narrow, float::F32, $rows>;
                multiply_f16(task: &float::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = float::multiply::<$narrow, float::F16, $rows>;
                multiply_bf16(task: &pairs::Task<'_>, groups: Range<usize>, rows: Range<usize>)
                    = pairs::multiply::<pairs::Wide<$narrow>, $pairs>;
                rms_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32])
                    = norm::rms_norm_row::<$lanes>;
                rope_row(table: &RopeTable, position: usize, row: &mut [f32], heads: Heads) = rope::rope_row;
                attend_bf16(task: &attention::Task<'_>, unit: &Unit<'_>)
                    = attention::vectors::attend::<Wide<$lanes, pages::Bf16>, $tiles, $vectors>;
                attend_int8(task: &attention::Task<'_>, unit: &Unit<'_>)
                    = attention::vectors::attend::<Wide<$lanes, pages::Int8>, $tiles, $vectors>;
                silu_mul_row(x: &[f32], out: &mut [f32]) = act::silu_mul_row::<$lanes>;
                add(x: &mut [f32], y: &[f32]) = act::add;
            }
        }
    };
    (@each $(#[$features:meta])*) => {};
    (@each $(#[$features:meta])* $name:ident($($arg:ident: $type:ty),*) = $kernel:expr; $($rest:tt)*) => {
        $(#[$features])*
        unsafe fn $name($($arg: $type),*) {
            // SAFETY: compiled for the level; everything else is passed on to the caller.
            unsafe { $kernel($($arg),*) }
        }
        kernels! { @each $(#[$features])* $($rest)* }
    };
}

kernels! {
    scalar: lanes isa::scalar::Scalar, narrow isa::scalar::Scalar, dots scalar, rows 2, pairs 2, tiles 1, vectors 1
}

#[cfg(target_arch = "x86_64")]
kernels! {
    #[target_feature(enable = "avx2,fma,f16c")]
    avx2: lanes Pair<isa::avx2::Ymm>, narrow isa::avx2::Ymm, dots avx2, rows 4, pairs 3, tiles 1, vectors 1
}

#[cfg(target_arch = "x86_64")]
kernels! {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    avx512: lanes isa::avx512::Zmm, narrow isa::avx512::Zmm, dots avx512, rows 8, pairs 4, tiles 2, vectors 2
}

/// Block products of its own, everything else from AVX-512.
#[cfg(target_arch = "x86_64")]
mod avx512vnni {
    use super::*;
    use isa::avx512vnni::{Q4, Q5, Q6, Q8};

    pub const TABLE: Table = Table {
        multiply_q8_0,
        multiply_q4_0,
        multiply_q4_1,
        multiply_q4_k,
        multiply_q5_k,
        multiply_q6_k,
        ..avx512::TABLE
    };

    kernels! { @each #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        multiply_q8_0(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = quantised::multiply::<Q8, Scale>;
        multiply_q4_0(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = quantised::multiply::<Q4<8>, Scale>;
        multiply_q4_1(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = quantised::multiply::<Q4<0>, ScaleMinimum>;
        multiply_q4_k(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = quantised::multiply::<Q4<0>, SuperScaleMinimum>;
        multiply_q5_k(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = quantised::multiply::<Q5, SuperScaleMinimum>;
        multiply_q6_k(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = quantised::multiply::<Q6, SuperScale>;
    }
}

/// Products of bf16 two by two, everything else from VNNI and AVX-512.
#[cfg(target_arch = "x86_64")]
mod avx512bf16 {
    use super::*;
    use isa::avx512::Zmm;

    pub const TABLE: Table = Table {
        round_row: round,
        multiply_bf16,
        pairing: Pairing::Crossed,
        attend_bf16,
        ..avx512vnni::TABLE
    };

    kernels! { @each #[target_feature(
        enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"
    )]
        round(writer: &rounded::Writer<'_>, row: usize, x: &[f32]) = round_row_crossed::<Zmm>;
        multiply_bf16(task: &pairs::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = pairs::multiply_eights::<pairs::Crossed<Zmm>>;
        attend_bf16(task: &attention::Task<'_>, unit: &Unit<'_>) = attention::vectors::attend_crossed::<Zmm, 2, 1>;
    }
}

/// Whole tiles of rows of formats with four or eight bits and a scale for each 32 weights, and all rows of bf16, by the tile unit,
/// everything else from VNNI and AVX-512.
#[cfg(target_arch = "x86_64")]
mod amx {
    use super::*;
    use isa::amx::{Amx, AmxPairs};
    use isa::avx512vnni as vnni;

    use tiled::{Bytes, Nibbles};

    pub const TABLE: Table = Table {
        round_row: round,
        multiply_q8_0,
        multiply_q4_0,
        multiply_q4_1,
        multiply_q4_k,
        multiply_bf16,
        pair_panel_rows: |_| pair_tiles::SLAB_ROWS,
        attend_at_a_time: attention::tiles::at_a_time,
        attend_bf16,
        attend_int8,
        ..avx512vnni::TABLE
    };

    kernels! { @each #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        multiply_q8_0(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = tiled::multiply::<Amx, Bytes, vnni::Q8, Scale>;
        multiply_q4_0(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = tiled::multiply::<Amx, Nibbles<8>, vnni::Q4<8>, Scale>;
        multiply_q4_1(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = tiled::multiply::<Amx, Nibbles<0>, vnni::Q4<0>, ScaleMinimum>;
        multiply_q4_k(task: &quantised::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = tiled::multiply::<Amx, Nibbles<0>, vnni::Q4<0>, SuperScaleMinimum>;
        round(writer: &rounded::Writer<'_>, row: usize, x: &[f32]) = round_row_tiled;
        multiply_bf16(task: &pairs::Task<'_>, groups: Range<usize>, rows: Range<usize>)
            = pair_tiles::multiply::<AmxPairs>;
        attend_bf16(task: &attention::Task<'_>, unit: &Unit<'_>)
            = attention::tiles::attend::<AmxPairs, pages::Bf16, 2, 2>;
        attend_int8(task: &attention::Task<'_>, unit: &Unit<'_>)
            = attention::tiles::attend::<AmxPairs, pages::Int8, 2, 2>;
    }
}
